"""Which saved results still stand? Those of the weights, the items and the texts as they are now.

    RUN/evals/step-00001200.json            the first
    RUN/evals/step-00001200-1f0c3a9e.json   another, of other settings
    evals/NAME.json …                       of a folder that is in no run

A result takes the place of another only if it is of the same settings: the other may have taken
hours.
"""

import glob
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gnano.evals.asked import Asked
from gnano.evals.evaluation import Evaluation, default_path
from gnano.evals.gathering import task_and_path
from gnano.infer import Loading


def saved_results(folder: Path, loading: Loading) -> Iterator[tuple[Path, Evaluation]]:
    """Where they lie, and they; only of weights that were kept as they are to be now."""
    first = _first(folder)
    for place in sorted(first.parent.glob(f"{glob.escape(first.stem)}*.json")):
        found = _read(place)
        if found is None or "harness" in found.settings:
            continue  # none that this version can read: it is made anew
        # below evals/ it may be of another folder of this name; a run may have moved with its own
        other = place.parent == Path("evals") and Path(found.folder).resolve() != folder.resolve()
        if other or found.settings.get("loading", _kept(Loading())) != _kept(loading):
            continue
        written = place.stat().st_mtime
        if all(path.stat().st_mtime <= written for path in _rests_on(found, folder)):
            yield place, found


def newest_result(folder: Path, loading: Loading) -> Evaluation | None:
    there = list(saved_results(folder, loading))
    return max(there, key=lambda pair: pair[0].stat().st_mtime)[1] if there else None


def result_of(folder: Path, asked: Asked, loading: Loading) -> Evaluation | None:
    """The one in which the same was asked."""
    wanted = _matter(json.loads(json.dumps(asdict(asked), default=str)))
    there = (found for _, found in saved_results(folder, loading))
    return next((found for found in there if _matter(found.settings) == wanted), None)


def result_path(found: Evaluation) -> Path:
    """Where to keep it: beside a result of other settings, in the place of one of the same."""
    first = default_path(found)
    there = _read(first)
    if there is None or _settings(there) == _settings(found):
        return first
    code = hashlib.sha256(_settings(found).encode()).hexdigest()[:8]
    return first.with_name(f"{first.stem}-{code}.json")


def items_file(found: Evaluation, task: str) -> str:
    """The name of the file that a task's items came from; "" is the Hub."""
    paths = dict(map(task_and_path, found.settings.get("files", ())))
    return Path(paths[task]).name if task in paths else ""


def _first(folder: Path) -> Path:
    return default_path(Evaluation(name="", folder=str(folder), parameters=0, tokens=None))


def _read(place: Path) -> Evaluation | None:
    try:
        return Evaluation.from_dict(json.loads(place.read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _settings(found: Evaluation) -> str:
    kept = found.settings.get("loading", _kept(Loading()))
    folder = str(Path(found.folder).resolve())
    return json.dumps([folder, _matter(found.settings), kept], sort_keys=True)


def _rests_on(found: Evaluation, folder: Path) -> list[Path]:
    paths = [Path(task_and_path(file)[1]) for file in found.settings.get("files", ())]
    paths += map(Path, found.settings.get("text", ()))
    if data := found.settings.get("data"):
        paths.append(Path(data) / "manifest.json")
    paths += [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return [path for path in paths if path.is_file()]


def _matter(settings: dict[str, Any]) -> dict[str, Any]:
    """Those that a score depends on; how the weights are kept is looked at on its own."""
    rest = {"batch", "downloads", "loading"}
    return {name: value for name, value in settings.items() if name not in rest}


def _kept(loading: Loading) -> dict[str, str]:
    return {"dtype": loading.dtype, "quant": loading.quant}
