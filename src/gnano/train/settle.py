"""What does this run run with? The recipe, with what was measured, and held to its word.

A new run writes its settled recipe into its folder. A run that continues must be asked for
the same: a value that shapes the weights may not change under way.
"""

import platform
import subprocess
import time
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch

from gnano import __version__
from gnano.data import Corpus
from gnano.model import flops_per_token, num_parameters
from gnano.model.compiling import compile_lacking
from gnano.train.memory import choose_parallel
from gnano.train.precision import choose_precision, refuse_precision
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe, flatten, load_recipe
from gnano.train.watching.trackers import check_installed

NAME = "recipe.toml"
LONG = 1e15  # FLOPs: about an hour on two cores, where compiling takes a minute
SETTLED = ("device", "precision", "compile")  # `auto` is chosen once for a whole run
# values that change neither the weights nor the order of the data
FREE = {"train.eval_every", "train.eval_tokens", "train.save_every", "train.keep", "data.folder"}
FREE |= {"train.keep_every", "train.keep_best", "train.guard.rollbacks", "train.guard.stall"}
FREE |= {"train.parallel", "train.replicas", "train.recompute", "train.trackers"}
FREE |= {"train.profile_at", "train.profile_steps", "data.workers", "data.keep_downloads"}


def device_of(recipe: Recipe, run: Path) -> str:
    """The kind of device that the run is on: what it was begun on, what is asked for, or a GPU."""
    if recipe.train.device != "auto":
        return recipe.train.device
    if (run / NAME).is_file():
        return load_recipe(str(run / NAME)).train.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def settle(recipe: Recipe, run: Path, corpus: Corpus, world: World) -> Recipe:
    """The recipe with `auto` replaced; written to the run's folder, or compared with it.

    Raises ValueError where recipe, data and an earlier part of the run do not fit together.
    """
    vocab_size = corpus.manifest.tokenizer["vocab_size"]
    if recipe.model.vocab_size != vocab_size:
        raise ValueError(
            f"{corpus.folder} was tokenized with {vocab_size:,} entries, but the model has "
            f"model.vocab_size {recipe.model.vocab_size:,}; set it to {vocab_size}, or prepare "
            f"with another data.tokenizer."
        )
    recipe.train.accumulation(recipe.model.block_size, world.size)
    corpus.weights(recipe.data.weights)
    path = run / NAME
    if path.exists():
        settled = _continued(recipe, path, corpus)
    else:
        settled = _chosen(recipe, run, world)
    refuse_precision(settled.train.precision, world.device)
    if settled.train.compile == "yes" and (reason := compile_lacking(world.device)):
        raise ValueError(f'{reason} Or choose train.compile = "no".')
    check_installed(settled.train.trackers)
    if not path.exists():
        _write(settled, path, corpus, world)
    if world.size > 1 and settled.train.parallel == "auto":
        settled = _with(settled, parallel=_parallel(settled, world))
    return settled


def _chosen(recipe: Recipe, run: Path, world: World) -> Recipe:
    """What a new run leaves to the machine."""
    settings, device = recipe.train, world.device
    precision, compiled = settings.precision, settings.compile
    if precision == "auto":
        precision = choose_precision(device)
    if compiled == "auto":
        tokens = settings.steps * settings.tokens_per_step
        pays = device.type == "cuda" or tokens * flops_per_token(recipe.model) > LONG
        compiled = "yes" if pays and compile_lacking(device) is None else "no"
    return _with(recipe, device=device_of(recipe, run), precision=precision, compile=compiled)


def _parallel(recipe: Recipe, world: World) -> Literal["ddp", "fsdp"]:
    memory = None
    if world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
    return choose_parallel(recipe.model, recipe.train, world.size, memory)


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **changes))


def _continued(recipe: Recipe, path: Path, corpus: Corpus) -> Recipe:
    earlier = load_recipe(str(path))
    asked = {key: value for key, value in flatten(recipe).items() if key not in FREE}
    had = {key: value for key, value in flatten(earlier).items() if key not in FREE}
    chosen = {name: getattr(earlier.train, name) for name in SETTLED}
    for name, value in chosen.items():
        if asked[f"train.{name}"] == "auto":  # so that a noisy moment cannot change it
            asked[f"train.{name}"] = value
    changed = sorted(key for key in asked.keys() | had.keys() if asked.get(key) != had.get(key))
    if changed:
        key = changed[0]
        raise ValueError(
            f"{path.parent} was begun with {key} = {had.get(key)!r} and is now asked for "
            f"{asked.get(key)!r}{f' ({len(changed)} values differ)' if changed[1:] else ''}; "
            f"go on with the same values, or name another folder (--out)."
        )
    fingerprint = tomllib.loads(path.read_text())["run"]["data_fingerprint"]
    if fingerprint != corpus.manifest.fingerprint:
        raise ValueError(
            f"{path.parent} was begun on other data than {corpus.folder} now holds "
            f"(fingerprint {fingerprint[:12]}…); go on with that data, or name another --out."
        )
    return _with(recipe, **chosen)


def _write(recipe: Recipe, path: Path, corpus: Corpus, world: World) -> None:
    import tomli_w

    facts = {
        "gnano": __version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ranks": world.size,
        "parameters": num_parameters(recipe.model),
        "data_fingerprint": corpus.manifest.fingerprint,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    content: dict[str, Any] = {**asdict(recipe), "run": facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_text(tomli_w.dumps(content))
    temporary.replace(path)


def _git_commit() -> str:
    """The commit of the checkout this package runs from, or "" for an installed one."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return asked.stdout.strip()
