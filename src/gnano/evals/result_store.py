"""Stored evaluation results, reused while weights, items and texts are unchanged.

    RUN/evals/step-00001200.json            the first result
    RUN/evals/step-00001200-1f0c3a9e.json   another one, with other settings
    evals/NAME.json …                       results of a folder that belongs to no run

A result replaces another only if both have the same settings: the other may have taken hours.
"""

import glob
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.evals.eval_tasks import parse_task_file
from gnano.evals.runner import EvalResult, settings_dict


def default_result_path(result: EvalResult) -> Path:
    """Return the path in the run of the checkpoint; for other folders, in evals/."""
    folder = Path(result.folder)
    by = "-by-harness" if "harness" in result.settings else ""
    name = f"{folder.resolve().name}{by}.json"
    if folder.resolve().parent.name == "checkpoints":
        return folder.parent.parent / "evals" / name
    return Path("evals") / name


def choose_result_path(result: EvalResult) -> Path:
    """Return the path to write to; only a result with the same settings is overwritten."""
    first = default_result_path(result)
    existing = _read_result(first)
    if existing is None or _settings_key(existing) == _settings_key(result):
        return first
    code = hashlib.sha256(_settings_key(result).encode()).hexdigest()[:8]
    return first.with_name(f"{first.stem}-{code}.json")


def load_valid_results(folder: Path, loading: LoadConfig) -> Iterator[tuple[Path, EvalResult]]:
    """Yield path and content of the up-to-date results of a checkpoint loaded with `loading`."""
    first = default_result_path(EvalResult(name="", folder=str(folder), parameters=0, tokens=None))
    expected_loading = _loading_settings(settings_dict(EvalConfig(), loading))
    for path in sorted(first.parent.glob(f"{glob.escape(first.stem)}*.json")):
        result = _read_result(path)
        if result is None or "harness" in result.settings:
            continue
        # a result in evals/ may belong to another folder of this name; a run may have been moved
        if path.parent == Path("evals") and Path(result.folder).resolve() != folder.resolve():
            continue
        if _loading_settings(result.settings) != expected_loading:
            continue
        written_at = path.stat().st_mtime
        if all(file.stat().st_mtime <= written_at for file in _input_files(result, folder)):
            yield path, result


def load_newest_result(folder: Path, loading: LoadConfig) -> EvalResult | None:
    """Return the newest up-to-date result."""
    results = list(load_valid_results(folder, loading))
    return max(results, key=lambda pair: pair[0].stat().st_mtime)[1] if results else None


def find_result(folder: Path, config: EvalConfig, loading: LoadConfig) -> EvalResult | None:
    """Return the up-to-date result with the same settings."""
    expected = _score_settings(settings_dict(config, loading))
    results = (result for _, result in load_valid_results(folder, loading))
    return next((one for one in results if _score_settings(one.settings) == expected), None)


def items_filename(result: EvalResult, task: str) -> str:
    """Return the name of the file with the task's items; "" if they came from the Hub."""
    paths = dict(map(parse_task_file, result.settings.get("files", ())))
    return Path(paths[task]).name if task in paths else ""


def _read_result(path: Path) -> EvalResult | None:
    """Return the result in a file; None if this version cannot read it."""
    try:
        return EvalResult.from_dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _settings_key(result: EvalResult) -> str:
    folder = str(Path(result.folder).resolve())
    settings = _score_settings(result.settings), _loading_settings(result.settings)
    return json.dumps([folder, *settings], sort_keys=True)


def _input_files(result: EvalResult, folder: Path) -> list[Path]:
    """Return the files that a result was computed from."""
    paths = [Path(parse_task_file(file)[1]) for file in result.settings.get("files", ())]
    paths += map(Path, result.settings.get("text", ()))
    if data := result.settings.get("data"):
        paths.append(Path(data) / "manifest.json")
    paths += [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return [path for path in paths if path.is_file()]


def _score_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a score depends on, except how the weights are loaded."""
    rest = {"batch_size", "cache_dir", "loading"}
    return {name: value for name, value in settings.items() if name not in rest}


def _loading_settings(settings: dict[str, Any]) -> Any:
    return settings.get("loading") or settings_dict(EvalConfig(), LoadConfig())["loading"]
