"""Saved evaluations: found again while weights, items and texts are the same, never overwritten.

    RUN/evals/step-00001200.json            the first
    RUN/evals/step-00001200-1f0c3a9e.json   another, of other settings
    evals/NAME.json …                       of a folder that is in no run

A result replaces another only if it is of the same settings: the other may have taken hours.
"""

import glob
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnano.evals.asked import Asked
from gnano.evals.evaluation import Evaluation, settings_of
from gnano.evals.gathering import task_and_path
from gnano.infer.loading import Loading


def default_path(evaluation: Evaluation) -> Path:
    """Return the path in the run that the checkpoint belongs to; for other folders, in evals/."""
    folder = Path(evaluation.folder)
    by = "-by-harness" if "harness" in evaluation.settings else ""
    name = f"{folder.resolve().name}{by}.json"
    if folder.resolve().parent.name == "checkpoints":
        return folder.parent.parent / "evals" / name
    return Path("evals") / name


def result_path(found: Evaluation) -> Path:
    """Return the path to save to: beside a result of other settings, over one of the same."""
    first = default_path(found)
    existing = _read(first)
    if existing is None or _identity(existing) == _identity(found):
        return first
    code = hashlib.sha256(_identity(found).encode()).hexdigest()[:8]
    return first.with_name(f"{first.stem}-{code}.json")


def saved_results(folder: Path, loading: Loading) -> Iterator[tuple[Path, Evaluation]]:
    """Yield path and content of the valid results of a checkpoint whose weights are kept so."""
    first = default_path(Evaluation(name="", folder=str(folder), parameters=0, tokens=None))
    for path in sorted(first.parent.glob(f"{glob.escape(first.stem)}*.json")):
        found = _read(path)
        if found is None or "harness" in found.settings:
            continue  # none that this version can read: it is made anew
        # below evals/ it may be of another folder of this name; a run may have moved with its own
        other = path.parent == Path("evals") and Path(found.folder).resolve() != folder.resolve()
        if other or _loading(found.settings) != _loading(settings_of(Asked(), loading)):
            continue
        written = path.stat().st_mtime
        if all(source.stat().st_mtime <= written for source in _inputs(found, folder)):
            yield path, found


def newest_result(folder: Path, loading: Loading) -> Evaluation | None:
    results = list(saved_results(folder, loading))
    return max(results, key=lambda pair: pair[0].stat().st_mtime)[1] if results else None


def result_of(folder: Path, asked: Asked, loading: Loading) -> Evaluation | None:
    """Return the saved result of the same settings."""
    wanted = _relevant(settings_of(asked, loading))
    results = (found for _, found in saved_results(folder, loading))
    return next((found for found in results if _relevant(found.settings) == wanted), None)


def items_file(found: Evaluation, task: str) -> str:
    """Return the name of the file that a task's items came from; "" is the Hub."""
    paths = dict(map(task_and_path, found.settings.get("files", ())))
    return Path(paths[task]).name if task in paths else ""


def _read(path: Path) -> Evaluation | None:
    try:
        return Evaluation.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _identity(found: Evaluation) -> str:
    folder = str(Path(found.folder).resolve())
    return json.dumps([folder, _relevant(found.settings), _loading(found.settings)], sort_keys=True)


def _inputs(found: Evaluation, folder: Path) -> list[Path]:
    """Return the files that a result was computed from."""
    paths = [Path(task_and_path(file)[1]) for file in found.settings.get("files", ())]
    paths += map(Path, found.settings.get("text", ()))
    if data := found.settings.get("data"):
        paths.append(Path(data) / "manifest.json")
    paths += [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return [path for path in paths if path.is_file()]


def _relevant(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a score depends on, but for the way the weights are kept."""
    rest = {"batch", "downloads", "loading"}
    return {name: value for name, value in settings.items() if name not in rest}


def _loading(settings: dict[str, Any]) -> Any:
    return settings.get("loading") or settings_of(Asked(), Loading())["loading"]
