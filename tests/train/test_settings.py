"""Every number of a recipe has a range, and a value without effect is refused."""

import inspect
import math
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import tomli_w
from tests.small_models import with_train

from gnano.config.data_config import InstructionConfig
from gnano.config.inference_config import EvalConfig
from gnano.config.recipe import Recipe, list_recipes, load_recipe
from gnano.train.trainer import train
from gnano.utils.validation import MAX_FLOAT, Range

WITHOUT: dict[str, str] = {}  # numbers that any value is right for, and why
TUNING = {"kind": "instructions", "sources": {"mine": {"files": ["a.jsonl"]}}}


def numbers(kind: Any, key: str = "") -> Iterator[tuple[str, type, Range | None]]:
    """Yield dotted name, type and range of every number of a configuration."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        yield from _numbers(hint, f"{key}.{name}" if key else name)


def _numbers(hint: Any, key: str, allowed: Range | None = None) -> Iterator[Any]:
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Annotated:
        allowed = next((item for item in inside[1:] if isinstance(item, Range)), None)
        yield from _numbers(inside[0], key, allowed)
    elif is_dataclass(hint):
        yield from numbers(hint, key)
    elif origin is UnionType:
        for kind in inside:
            kinds = {"InstructionConfig": "tuning data"}
            yield from _numbers(kind, kinds.get(getattr(kind, "__name__", ""), key), allowed)
    elif origin is dict:
        yield from _numbers(inside[1], f"{key}.mine")
    elif hint in (int, float):
        yield key, hint, allowed


RECIPE = {key: (kind, allowed) for key, kind, allowed in numbers(Recipe)}


def test_every_number_has_a_range() -> None:
    assert len(RECIPE) > 50 and "train.schedule.peak" in RECIPE
    assert "data.sources.mine.weight" in RECIPE and "tuning data.sources.mine.weight" in RECIPE
    found = [*numbers(Recipe), *numbers(EvalConfig)]
    assert {key for key, _, allowed in found if allowed is None} == set(WITHOUT)


GENERATOR = "[data.sources.a]\nkind = 'generator'\ngenerator = 'a:b'\nmax_bytes = 9"


@pytest.mark.parametrize("key", RECIPE)
def test_number_outside_its_range_is_refused(key: str, tmp_path: Path) -> None:
    kind, allowed = RECIPE[key]
    assert allowed is not None
    outside: list[Any] = [math.nan, math.inf, -math.inf] if kind is float else []
    outside += [] if allowed.minimum == -math.inf else [kind(allowed.minimum) - kind(1)]
    outside += [] if allowed.maximum == math.inf else [kind(min(allowed.maximum * 2, 2**63 - 1))]
    low, high = max(allowed.minimum, -MAX_FLOAT), min(allowed.maximum, MAX_FLOAT)
    outside = [value for value in outside if not low <= value <= high]
    assert outside, key
    *tables, name = key.replace("tuning data", "data").split(".")
    for value in outside:
        content: dict[str, Any] = {"data": TUNING} if key.startswith("tuning") else {}
        place = content = {**content}
        for table in tables:
            place[table] = {**place.get(table, {})}
            place = place[table]
        place[name] = value
        file = tmp_path / "recipe.toml"
        file.write_text(tomli_w.dumps(content))
        with pytest.raises(ValueError, match=r"; it must be .*\.$") as refused:
            load_recipe(str(file))
        assert f"{'.'.join([*tables, name])} is {value}" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\ndpo_beta = 0.3", "train.dpo_beta is 0.3, but has no effect"),
        ("[data]\nkind = 'instructions'\n[train]\ndpo_beta = 0.3", "train.dpo_beta is 0.3"),
        ("[train.optimizer]\nmomentum = 0.9", "train.optimizer.momentum is 0.9"),
        ("[train.optimizer]\nns_steps = 4", "train.optimizer.ns_steps is 4"),
        ("[train.schedule]\ndecay = 0.2", "train.schedule.decay is 0.2"),
        ("[train.stability]\nspike_window = 64", "train.stability.spike_window is 64"),
        ("[train.lora]\nalpha = 32", "train.lora.alpha is 32.0"),
        ("[train.lora]\ndropout = 0.1", "train.lora.dropout is 0.1"),
        ("[train.lora]\ntarget_modules = ['q_proj']", "train.lora.target_modules is"),
        ("[train]\neval_tasks_every = 5", "train.eval_tasks_every is 5"),
        ("[train]\neval_tasks_limit = 5", "train.eval_tasks_limit is 5"),
        ("[train]\nprofile_steps = 5", "train.profile_steps is 5"),
        (
            "[train]\neval_every = 0\nearly_stopping_patience = 2",
            "train.early_stopping_patience is 2",
        ),
        ("[data.sources.a]\nrepo = 'a/b'", "data.sources.a.repo is 'a/b'"),
        ("[data.sources.a]\nsplit = 'test'", "data.sources.a.split is 'test'"),
        (
            "[data.sources.a]\nkind='generator'\ngenerator='a:b'\nmax_bytes=9\nfiles=['x']",
            "data.sources.a.files is",
        ),
        (
            "[data.sources.a]\nkind='generator'\ngenerator='a:b'\nmax_bytes=9\ncolumn='x'",
            "data.sources.a.column is",
        ),
        (
            "[data]\nkind = 'preferences'\n[data.sources.a]\nrevision = 'v2'",
            "data.sources.a.revision is 'v2'",
        ),
    ],
)
def test_setting_without_effect_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match="has no effect where") as refused:
        load_recipe(str(file))
    assert message in str(refused.value)


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_warm_up_for_less_than_half_of_their_steps(name: str) -> None:
    settings = load_recipe(name).train
    assert 0 < settings.schedule.warmup_steps(settings.steps) < settings.steps / 2


def test_default_warmup_is_a_share_of_the_steps() -> None:
    settings = Recipe().train
    assert 0 < settings.schedule.warmup_steps(settings.steps) <= settings.steps / 10


def test_warmup_of_the_complete_run_is_refused() -> None:
    recipe = load_recipe("124m")
    with pytest.raises(ValueError, match=r"train.schedule.warmup takes 500 of 500 steps"):
        with_train(recipe, steps=500)
    assert with_train(recipe, steps=501).train.steps == 501


def test_tuning_steps_without_epochs_are_used(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    for named, epochs in (({}, 0), ({"epochs": 2}, 2)):
        file.write_text(tomli_w.dumps({"data": {**TUNING, **named}, "train": {"steps": 7}}))
        recipe = load_recipe(str(file))
        assert (recipe.train.steps, recipe.tuning_data.epochs) == (7, epochs)
    file.write_text(tomli_w.dumps({"data": TUNING}))
    assert load_recipe(str(file)).tuning_data.epochs == InstructionConfig().epochs


def test_epochs_that_override_steps_are_reported(sft_recipe: Recipe, tmp_path: Path) -> None:
    messages: list[str] = []
    recipe = with_train(sft_recipe, steps=1_000_000)
    recipe = replace(recipe, data=replace(recipe.tuning_data, epochs=0.1))
    result = train(
        recipe, tmp_path / "run", notify=lambda text, waiting=False: messages.append(text)
    )
    assert result.total_steps < 10
    assert any(
        "data.epochs sets the number" in text and f"{result.total_steps} steps" in text
        for text in messages
    )


def configs(kind: Any) -> Iterator[type]:
    """Yield the dataclasses of a recipe."""
    if is_dataclass(kind):
        yield kind  # type: ignore[misc]
        inside: Any = get_type_hints(kind).values()
    else:
        inside = get_args(kind)
    for part in inside:
        yield from configs(part)


def test_every_setting_has_a_help_comment() -> None:
    """The help of a field is the comment on its line or on the line above it."""
    checked = 0
    for kind in {*configs(Recipe)} - {Recipe}:
        lines = inspect.getsource(kind).split("\n")
        places = {
            name: number
            for number, line in enumerate(lines)
            for name in get_type_hints(kind)
            if line.startswith(f"    {name}: ")
        }
        for name, number in places.items():
            has_trailing, has_preceding = (
                "  # " in lines[number],
                lines[number - 1].startswith("    # "),
            )
            is_table = "field(default_factory" in lines[number]
            assert has_trailing != has_preceding or (is_table and not has_preceding), (
                f"{kind.__name__}.{name}"
            )
            checked += not is_table
    assert checked > 80
