"""A command's arguments: its function's parameters, or a recipe with any value overridden.

Both come from dataclasses and signatures through tyro, so that a field's comment is its
help text and a recipe's key is its flag: `train.steps` in TOML, `--train.steps` here.
"""

from collections.abc import Callable
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig, SamplingParams
from gnano.config.recipe import Recipe, list_recipes, load_recipe
from gnano.utils.text import expand_path

T = TypeVar("T")
RECIPE_TABLES = ("model", "data", "train")
PATH_REGISTRY = ConstructorRegistry()
# their fields are options of the command itself
SamplingArgs = Annotated[SamplingParams, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
EvalArgs = Annotated[EvalConfig, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
LoadArgs = Annotated[LoadConfig, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]


@PATH_REGISTRY.primitive_rule
def _path_constructor(given: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """A path whose leading ~, which a shell leaves in --out=~/x and in quotes, is the home."""
    if given.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda typed: Path(expand_path(typed[0])),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def run_function(function: Callable[..., T], command: str, argv: list[str]) -> T:
    """Parse the arguments by the function's signature, and call it."""
    with PATH_REGISTRY:
        return tyro.cli(function, prog=f"gnano {command}", args=argv)


def parse_recipe(
    command: str, description: str, argv: list[str], recipe_name: str | None = None, **own: Any
) -> tuple[Recipe, Any]:
    """`RECIPE --model.… --data.… --train.…`, and the command's own options beside them.

    The recipe is the first argument, unless it is `fixed`. `own` maps an option's name to
    (type, default, help). Returns the recipe as overridden, and an object that carries the
    own options.
    """
    usage = f"gnano {command}"
    if recipe_name is None:
        usage += " RECIPE"
        if argv and not argv[0].startswith("-"):
            recipe_name, argv = argv[0], argv[1:]
            usage = f"gnano {command} {recipe_name}"
        elif not {"-h", "--help"} & set(argv):
            raise ValueError(
                f"Name a recipe: {usage}. There are {', '.join(list_recipes())}, "
                f"or give the path of a TOML file."
            )
    recipe = load_recipe(recipe_name) if recipe_name else Recipe()
    fields: list[Any] = [
        (name, Annotated[kind, tyro.conf.arg(name=name.rstrip("_"), help=text)], default)
        for name, (kind, default, text) in own.items()
    ]
    fields += [(part, type(getattr(recipe, part)), getattr(recipe, part)) for part in RECIPE_TABLES]
    arguments: Any = make_dataclass("Arguments", fields, frozen=True, kw_only=True)
    with PATH_REGISTRY:
        parsed = tyro.cli(arguments, prog=usage, description=description, args=argv)
    return Recipe(**{part: getattr(parsed, part) for part in RECIPE_TABLES}), parsed


def parse_finetune_recipe(
    command: str, description: str, argv: list[str], **own: Any
) -> tuple[Recipe, Any]:
    """`RECIPE --from BASE --files … --out …`, and what `with_recipe` takes."""
    allow = (tuple[str, ...], (), "keys or tables of the recipe that may differ from the run's")
    recipe, parsed = parse_recipe(
        command,
        description,
        argv,
        from_=(str, "", "the model to begin with: a run, a checkpoint or a Hugging Face folder"),
        files=(tuple[str, ...], (), "records to learn from, instead of the recipe's sources"),
        out=(Path | None, None, "where the run is written; by default runs/RECIPE"),
        allow=allow,
        **own,
    )
    recipe = recipe.for_tuning(command, parsed.from_, parsed.files)
    refuse_shape_flags(argv)
    if "--train.steps" in flag_names(argv):
        if "--data.epochs" in flag_names(argv) and recipe.tuning_data.epochs:
            raise ValueError("--train.steps and --data.epochs both say how long: leave one out.")
        recipe = replace(recipe, data=replace(recipe.tuning_data, epochs=0.0))
    return recipe, parsed


def refuse_shape_flags(argv: list[str]) -> None:
    """Raise ValueError for a flag that a run which begins with a base would not obey."""
    for flag in sorted(flag_names(argv)):
        if flag.startswith("--model.") and flag != "--model.dropout":
            raise ValueError(f"{flag} has no effect: the model has the shape of its base.")


def flag_names(argv: list[str]) -> set[str]:
    """The options among the arguments, without their values, as they are spelled in the help."""
    return {part.split("=")[0].replace("_", "-") for part in argv if part.startswith("--")}
