"""The metadata of a run: its folder's `recipe.toml`, which is written atomically.

[model] [data] [train]    the resolved recipe, as it is now
[run]                     facts of the start: versions, commit, data
[[run.changes]]           changes that were allowed since: step, key, from, to
"""

import platform
import subprocess
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gnano import __version__
from gnano.checkpoint.run_checkpoints import list_checkpoints
from gnano.config.recipe import Recipe, load_recipe
from gnano.model.flops import num_parameters
from gnano.utils.files import atomic_write_text, read_text

RECIPE_FILE, METRICS_FILE = "recipe.toml", "metrics.jsonl"
DATA_KEY = "data"  # the key of a change of the prepared data


@dataclass(frozen=True)
class RunMetadata:
    """The content of a run's `recipe.toml`."""

    recipe: Recipe
    facts: dict[str, Any]  # the table [run]
    data_fingerprint: str  # of the data that it trained on last


def has_started(run: Path) -> bool:
    """Return whether the run has a step or a checkpoint; before that its recipe may change."""
    log = run / METRICS_FILE
    return (run / RECIPE_FILE).is_file() and bool(
        list_checkpoints(run) or (log.is_file() and log.stat().st_size)
    )


def read_run_metadata(path: Path) -> RunMetadata:
    """Read a `recipe.toml`; raise ValueError where it is damaged."""
    try:
        recipe = load_recipe(str(path))
        facts = tomllib.loads(read_text(path)).get("run")
        if not isinstance(facts, dict) or not isinstance(facts.get("data_fingerprint"), str):
            raise ValueError("no table [run] with a data_fingerprint")
        data = [str(c["to"]) for c in facts.get("changes", ()) if c["key"] == DATA_KEY]
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error).removeprefix(f"Recipe {path}").lstrip(": ").rstrip(".")
        raise ValueError(
            f"{path} is damaged, or of another version of gnano ({reason}): repair it or restore a "
            f"copy; or delete it, and the same command writes a new one, without a comparison."
        ) from None
    return RunMetadata(recipe, facts, [facts["data_fingerprint"], *data][-1])


def write_run_metadata(recipe: Recipe, facts: dict[str, Any], path: Path) -> None:
    """Write a `recipe.toml`."""
    import tomli_w

    content: dict[str, Any] = {**asdict(recipe), "run": facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, tomli_w.dumps(content))


def collect_run_facts(recipe: Recipe, fingerprint: str, world_size: int) -> dict[str, Any]:
    """Return the facts that a new run records."""
    on_gpu = recipe.train.device == "cuda"
    return {
        "gnano": __version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ranks": world_size,
        **({"gpu": torch.cuda.get_device_name()} if on_gpu else {}),
        "parameters": num_parameters(recipe.model),
        "data_fingerprint": fingerprint,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _git_commit() -> str:
    """Return the commit of the checkout that contains this package, or ""."""
    command, here = ["git", "rev-parse", "HEAD"], Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=here, capture_output=True, encoding="utf-8")
        return found.stdout.strip()
    except OSError:
        return ""
