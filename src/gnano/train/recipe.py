"""What is the experiment? A recipe: one TOML file that holds every value.

    [model]  shape = "10m"        a named shape, and any field of ModelConfig
    [data]   …                    DataConfig; [data.sources.NAME] a Source each
             kind = "instructions"   InstructionConfig, likewise; or "preferences"
    [train]  …                    TrainConfig; [train.optimizer], [train.schedule]

`gnano/recipes/` holds the ones that come with the package. A run writes the recipe it
settled on back as `recipe.toml`, with a table `[run]` of facts that is not read again.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gnano.data.instructions.config import InstructionConfig, InstructionSource
from gnano.data.sources import DataConfig
from gnano.model.config import PRESETS, ModelConfig
from gnano.train.config import TrainConfig
from gnano.utils.paths import expanded
from gnano.utils.text import read_text
from gnano.utils.unused import refuse_unused

COMMANDS = {"instructions": "sft", "preferences": "dpo"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig | InstructionConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if not isinstance(self.data, InstructionConfig) or self.data.kind != "preferences":
            refuse_unused(self.train, "train.", ("beta",), "data.kind is not 'preferences'")

    @property
    def inputs(self) -> list[str]:
        """Paths and globs of what a run of it reads."""
        if isinstance(self.data, DataConfig):
            data = [self.data.folder]
        else:
            data = [file for source in self.data.sources.values() for file in source.files]
        return [*data, self.train.base] if self.train.base else data

    @property
    def corpus(self) -> DataConfig:
        """Its data where that is texts; raises ValueError where it is not."""
        if not isinstance(self.data, DataConfig):
            raise ValueError(
                f"This recipe tunes a model on {self.data.kind}, which need no preparation: "
                f"gnano {COMMANDS[self.data.kind]} RECIPE --from BASE."
            )
        return self.data

    def tuning(self, command: str, base: str, files: Sequence[str]) -> "Recipe":
        """The recipe from this base, and on these files in the place of its own sources.

        What is not given stays as it is. Raises ValueError where another command is for it.
        """
        config = self.instructions
        if command != COMMANDS[config.kind]:
            raise ValueError(
                f"This recipe tunes a model on {config.kind}: gnano {COMMANDS[config.kind]} RECIPE."
            )
        if files:
            config = replace(config, sources={"mine": InstructionSource(files=tuple(files))})
        train = replace(self.train, base=base or self.train.base)
        return replace(self, data=config, train=train)

    @property
    def instructions(self) -> InstructionConfig:
        """Its data where that is instructions or preferences; raises ValueError where it is not."""
        if not isinstance(self.data, InstructionConfig):
            raise ValueError(
                "This recipe trains on texts (its [data] has no kind): gnano pretrain RECIPE."
            )
        return self.data


def recipe_names() -> list[str]:
    """The recipes that come with the package, smallest model first."""
    files = resources.files("gnano").joinpath("recipes").iterdir()
    names = [file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")]
    sizes = list(PRESETS)  # from small to large, and most recipes are called after their shape
    return sorted(
        names, key=lambda name: (sizes.index(name) if name in sizes else len(sizes), name)
    )


def load_recipe(name: str) -> Recipe:
    """A recipe by its name, or from the path of a TOML file.

    Raises ValueError naming the file and the key where something is not as it should be.
    """
    if name in recipe_names():
        text = resources.files("gnano").joinpath("recipes", f"{name}.toml").read_text("utf-8")
    elif (file := Path(expanded(name))).is_file():
        text = read_text(file)
    else:
        raise ValueError(
            f"No recipe is called {name!r}{_meant(name, recipe_names())}. "
            f"There are {', '.join(recipe_names())}, or give the path of a TOML file."
        )
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"Recipe {name} is not TOML: {error}.") from None
    data, train = content.get("data", {}), content.get("train", {})
    tuning = isinstance(data, dict) and "kind" in data
    if tuning and "epochs" not in data and isinstance(train, dict) and "steps" in train:
        data["epochs"] = 0.0  # the steps that the file names are those that are taken
    content.pop("run", None)
    model = content.get("model", {})
    shape = model.pop("shape", None) if isinstance(model, dict) else None
    if shape is not None:
        if shape not in PRESETS:
            raise ValueError(
                f"Recipe {name}: model.shape {shape!r} is none of {', '.join(PRESETS)}."
            )
        content["model"] = {**asdict(PRESETS[shape]), **model}
    recipe: Recipe = _build(Recipe, content, f"Recipe {name}: ", "")
    return recipe


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Every value under its dotted name, such as `train.schedule.peak`."""

    def walk(value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {name: value}
        parts = [walk(inner, f"{name}.{key}" if name else key) for key, inner in value.items()]
        return {key: inner for part in parts for key, inner in part.items()}

    return walk(asdict(recipe), "")


def _build(kind: Any, content: Any, where: str, name: str) -> Any:
    """The value of type `kind` that TOML content stands for."""
    if is_dataclass(kind):
        if not isinstance(content, dict):
            raise ValueError(f"{where}{name} must be a table.")
        hints = get_type_hints(kind)
        known = [f.name for f in fields(kind)]
        for key in content:
            if key not in known:
                raise ValueError(f"{where}unknown key {_dot(name, key)}{_meant(key, known)}.")
        values = {k: _build(hints[k], v, where, _dot(name, k)) for k, v in content.items()}
        try:
            return kind(**values)  # type: ignore[operator]
        except ValueError as error:
            known_as = str(error).replace("data.sources.*", name)  # a source knows no name
            raise ValueError(f"{where}{known_as}") from None
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:  # of data: which of them, its kind tells
        tuning = isinstance(content, dict) and "kind" in content
        return _build(InstructionConfig if tuning else DataConfig, content, where, name)
    if origin is dict and isinstance(content, Mapping):
        return {k: _build(arguments[1], v, where, _dot(name, k)) for k, v in content.items()}
    if origin is tuple and isinstance(content, list):
        return tuple(_build(arguments[0], v, where, name) for v in content)
    if origin is Literal and content in arguments:
        return content
    if kind is float and type(content) is int:
        return float(content)
    if origin is None and type(content) is kind:
        return content
    wanted = " or ".join(map(repr, arguments)) if origin is Literal else _plain(kind)
    raise ValueError(f"{where}{name} is {content!r}; it must be {wanted}.")


def _dot(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _plain(kind: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
    return words.get(kind, "a list of texts" if get_origin(kind) is tuple else "a table")
