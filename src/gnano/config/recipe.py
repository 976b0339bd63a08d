"""Recipes: one TOML file that holds every setting of an experiment.

    [model]  shape = "10m"        a preset, and any field of ModelConfig
    [data]   …                    DataConfig; [data.sources.NAME] a SourceConfig each
             kind = "instructions"   InstructionConfig, likewise; or "preferences"
    [train]  …                    TrainConfig; [train.optimizer], [train.schedule] …

`gnano/config/recipes/` holds the recipes of the package. A run writes the recipe that it resolved
as `recipe.toml`, with a table `[run]` of metadata, which `load_recipe` ignores.
"""

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource
from gnano.config.model_config import PRESETS, ModelConfig
from gnano.config.train_config import TrainConfig
from gnano.utils.files import expand_path, read_text
from gnano.utils.validation import reject_unused

TUNING_COMMANDS = {"instructions": "sft", "preferences": "dpo"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of an experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig | InstructionConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if not isinstance(self.data, InstructionConfig) or self.data.kind != "preferences":
            reject_unused(self.train, "train", ("dpo_beta",), "data.kind is not 'preferences'")

    @property
    def input_paths(self) -> list[str]:
        """Paths and globs of the files that a run reads."""
        if isinstance(self.data, DataConfig):
            data = [self.data.folder]
        else:
            data = [file for source in self.data.sources.values() for file in source.files]
        return [*data, self.train.init_from] if self.train.init_from else data

    @property
    def pretraining_data(self) -> DataConfig:
        """The data of a pretraining recipe; raises ValueError for another recipe."""
        if not isinstance(self.data, DataConfig):
            raise ValueError(
                f"This recipe fine-tunes a model on {self.data.kind}, which need no preparation: "
                f"run gnano {TUNING_COMMANDS[self.data.kind]} RECIPE --from BASE."
            )
        return self.data

    @property
    def tuning_data(self) -> InstructionConfig:
        """The data of a fine-tuning recipe; raises ValueError for another recipe."""
        if not isinstance(self.data, InstructionConfig):
            raise ValueError(
                "This recipe trains on texts (its [data] has no kind): run gnano pretrain RECIPE."
            )
        return self.data

    def for_tuning(self, command: str, base: str, files: Sequence[str]) -> "Recipe":
        """Return the recipe with this base model and, if given, these files as its only source.

        Raises ValueError if the recipe belongs to another command.
        """
        config = self.tuning_data
        if command != TUNING_COMMANDS[config.kind]:
            raise ValueError(
                f"This recipe fine-tunes a model on {config.kind}: run gnano "
                f"{TUNING_COMMANDS[config.kind]} RECIPE."
            )
        if files:
            config = replace(config, sources={"mine": InstructionSource(files=tuple(files))})
        train = replace(self.train, init_from=base or self.train.init_from)
        return replace(self, data=config, train=train)


def list_recipes() -> list[str]:
    """Return the names of the package's recipes, smallest model first."""
    files = resources.files("gnano.config").joinpath("recipes").iterdir()
    names = sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))
    # the presets are in the order of their sizes, and most recipes have the name of one
    return [name for name in dict.fromkeys([*PRESETS, *names]) if name in names]


def load_recipe(name: str) -> Recipe:
    """Load a recipe of the package by its name, or from the path of a TOML file.

    Raises ValueError naming the file and the key for an invalid recipe.
    """
    if name in list_recipes():
        folder = resources.files("gnano.config").joinpath("recipes")
        text = folder.joinpath(f"{name}.toml").read_text("utf-8")
    elif (file := Path(expand_path(name))).is_file():
        text = read_text(file)
    else:
        raise ValueError(
            f"No recipe is called {name!r}{_suggest_name(name, list_recipes())}. "
            f"There are {', '.join(list_recipes())}, or give the path of a TOML file."
        )
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"Recipe {name} is not valid TOML: {error}.") from None
    data, train = content.get("data", {}), content.get("train", {})
    is_tuning = isinstance(data, dict) and "kind" in data
    if is_tuning and "epochs" not in data and isinstance(train, dict) and "steps" in train:
        data["epochs"] = 0.0  # the file sets the steps
    content.pop("run", None)
    model = content.get("model", {})
    shape = model.pop("shape", None) if isinstance(model, dict) else None
    try:
        if shape is not None:
            if shape not in PRESETS:
                raise ValueError(f"model.shape {shape!r} is none of {', '.join(PRESETS)}.")
            content["model"] = {**asdict(PRESETS[shape]), **model}
        recipe: Recipe = _parse_value(Recipe, content, "")
    except ValueError as error:
        raise ValueError(f"Recipe {name}: {error}") from None
    return recipe


def _parse_value(expected_type: Any, value: Any, key: str) -> Any:
    """Convert a value of TOML to `expected_type`."""
    origin, arguments = get_origin(expected_type), get_args(expected_type)
    table = f"{key}." if key else ""
    if is_dataclass(expected_type):
        if not isinstance(value, dict):
            raise ValueError(f"{key} must be a table.")
        hints = get_type_hints(expected_type)
        for name in value:
            if name not in hints:
                raise ValueError(f"unknown key {table}{name}{_suggest_name(name, hints)}.")
        values = {k: _parse_value(hints[k], v, f"{table}{k}") for k, v in value.items()}
        try:
            return expected_type(**values)  # type: ignore[operator]
        except ValueError as error:  # a source does not know its name
            raise ValueError(str(error).replace("data.sources.*", key)) from None
    if origin is UnionType:  # of `data`, which has a kind in a fine-tuning recipe
        is_tuning = isinstance(value, dict) and "kind" in value
        return _parse_value(InstructionConfig if is_tuning else DataConfig, value, key)
    if origin is dict and isinstance(value, dict):
        return {k: _parse_value(arguments[1], v, f"{table}{k}") for k, v in value.items()}
    if origin is tuple and isinstance(value, list):
        return tuple(_parse_value(arguments[0], v, key) for v in value)
    if origin is Literal and value in arguments:
        return value
    if expected_type is float and type(value) is int:
        return float(value)
    if origin is None and type(value) is expected_type:
        return value
    names = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
    if origin is Literal:
        expected = " or ".join(map(repr, arguments))
    else:
        expected = names.get(expected_type, "a list of texts" if origin is tuple else "a table")
    raise ValueError(f"{key} is {value!r}; it must be {expected}.")


def _suggest_name(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def flatten_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return every value by its dotted name, such as `train.schedule.peak`."""
    flat = {}
    pending: list[tuple[str, Any]] = list(asdict(recipe).items())
    while pending:
        name, value = pending.pop(0)
        if isinstance(value, dict):
            pending[:0] = [(f"{name}.{key}", inner) for key, inner in value.items()]
        else:
            flat[name] = value
    return flat
