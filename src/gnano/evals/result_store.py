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

from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.evals.eval_tasks import parse_task_file
from gnano.evals.runner import EvalResult, settings_dict


def default_result_path(result: EvalResult) -> Path:
    """Return the path in the run that the checkpoint belongs to; for other folders, in evals/."""
    folder = Path(result.folder)
    by = "-by-harness" if "harness" in result.settings else ""
    name = f"{folder.resolve().name}{by}.json"
    if folder.resolve().parent.name == "checkpoints":
        return folder.parent.parent / "evals" / name
    return Path("evals") / name


def choose_result_path(result: EvalResult) -> Path:
    """Return the path to save to: beside a result of other settings, over one of the same."""
    first = default_result_path(result)
    existing = _read_result(first)
    if existing is None or _settings_key(existing) == _settings_key(result):
        return first
    code = hashlib.sha256(_settings_key(result).encode()).hexdigest()[:8]
    return first.with_name(f"{first.stem}-{code}.json")


def load_valid_results(folder: Path, loading: LoadConfig) -> Iterator[tuple[Path, EvalResult]]:
    """Yield path and content of the valid results of a checkpoint whose weights are kept so."""
    first = default_result_path(EvalResult(name="", folder=str(folder), parameters=0, tokens=None))
    for path in sorted(first.parent.glob(f"{glob.escape(first.stem)}*.json")):
        found = _read_result(path)
        if found is None or "harness" in found.settings:
            continue  # none that this version can read: it is made anew
        # below evals/ it may be of another folder of this name; a run may have moved with its own
        other = path.parent == Path("evals") and Path(found.folder).resolve() != folder.resolve()
        if other or _loading_settings(found.settings) != _loading_settings(
            settings_dict(EvalConfig(), loading)
        ):
            continue
        written = path.stat().st_mtime
        if all(source.stat().st_mtime <= written for source in _input_files(found, folder)):
            yield path, found


def load_newest_result(folder: Path, loading: LoadConfig) -> EvalResult | None:
    results = list(load_valid_results(folder, loading))
    return max(results, key=lambda pair: pair[0].stat().st_mtime)[1] if results else None


def find_result(folder: Path, config: EvalConfig, loading: LoadConfig) -> EvalResult | None:
    """Return the saved result of the same settings."""
    wanted = _score_settings(settings_dict(config, loading))
    results = (found for _, found in load_valid_results(folder, loading))
    return next((found for found in results if _score_settings(found.settings) == wanted), None)


def items_filename(result: EvalResult, task: str) -> str:
    """Return the name of the file that a task's items came from; "" is the Hub."""
    paths = dict(map(parse_task_file, result.settings.get("files", ())))
    return Path(paths[task]).name if task in paths else ""


def _read_result(path: Path) -> EvalResult | None:
    try:
        return EvalResult.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _settings_key(result: EvalResult) -> str:
    folder = str(Path(result.folder).resolve())
    return json.dumps(
        [folder, _score_settings(result.settings), _loading_settings(result.settings)],
        sort_keys=True,
    )


def _input_files(result: EvalResult, folder: Path) -> list[Path]:
    """Return the files that a result was computed from."""
    paths = [Path(parse_task_file(file)[1]) for file in result.settings.get("files", ())]
    paths += map(Path, result.settings.get("text", ()))
    if data := result.settings.get("data"):
        paths.append(Path(data) / "manifest.json")
    paths += [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return [path for path in paths if path.is_file()]


def _score_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a score depends on, but for the way the weights are kept."""
    rest = {"batch_size", "cache_dir", "loading"}
    return {name: value for name, value in settings.items() if name not in rest}


def _loading_settings(settings: dict[str, Any]) -> Any:
    return settings.get("loading") or settings_dict(EvalConfig(), LoadConfig())["loading"]
