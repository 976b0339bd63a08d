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

from gnano.evals.asked import Asked
from gnano.infer.loading import Loading
from gnano.infer.sampling import Sampling
from gnano.train.recipe import Recipe, load_recipe, recipe_names
from gnano.utils.paths import expanded

T = TypeVar("T")
PARTS = ("model", "data", "train")
PATHS = ConstructorRegistry()
# their fields are options of the command itself
Drawing = Annotated[Sampling, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
Asking = Annotated[Asked, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
Keeping = Annotated[Loading, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]


@PATHS.primitive_rule
def _path(given: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """A path whose leading ~, which a shell leaves in --out=~/x and in quotes, is the home."""
    if given.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda typed: Path(expanded(typed[0])),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def call(function: Callable[..., T], command: str, argv: list[str]) -> T:
    """Parse the arguments by the function's signature, and call it."""
    with PATHS:
        return tyro.cli(function, prog=f"gnano {command}", args=argv)


def with_recipe(
    command: str, description: str, argv: list[str], fixed: str | None = None, **own: Any
) -> tuple[Recipe, Any]:
    """`RECIPE --model.… --data.… --train.…`, and the command's own options beside them.

    The recipe is the first argument, unless it is `fixed`. `own` maps an option's name to
    (type, default, help). Returns the recipe as overridden, and an object that carries the
    own options.
    """
    usage = f"gnano {command}"
    if fixed is None:
        usage += " RECIPE"
        if argv and not argv[0].startswith("-"):
            fixed, argv = argv[0], argv[1:]
            usage = f"gnano {command} {fixed}"
        elif not {"-h", "--help"} & set(argv):
            raise ValueError(
                f"Name a recipe: {usage}. There are {', '.join(recipe_names())}, "
                f"or give the path of a TOML file."
            )
    recipe = load_recipe(fixed) if fixed else Recipe()
    fields: list[Any] = [
        (name, Annotated[kind, tyro.conf.arg(name=name.rstrip("_"), help=text)], default)
        for name, (kind, default, text) in own.items()
    ]
    fields += [(part, type(getattr(recipe, part)), getattr(recipe, part)) for part in PARTS]
    arguments: Any = make_dataclass("Arguments", fields, frozen=True, kw_only=True)
    with PATHS:
        parsed = tyro.cli(arguments, prog=usage, description=description, args=argv)
    return Recipe(**{part: getattr(parsed, part) for part in PARTS}), parsed


def with_tuning(command: str, description: str, argv: list[str], **own: Any) -> tuple[Recipe, Any]:
    """`RECIPE --from BASE --files … --out …`, and what `with_recipe` takes."""
    allow = (tuple[str, ...], (), "keys or tables of the recipe that may differ from the run's")
    recipe, parsed = with_recipe(
        command,
        description,
        argv,
        from_=(str, "", "the model to begin with: a run, a checkpoint or a Hugging Face folder"),
        files=(tuple[str, ...], (), "records to learn from, instead of the recipe's sources"),
        out=(Path | None, None, "where the run is written; by default runs/RECIPE"),
        allow=allow,
        **own,
    )
    recipe = recipe.tuning(command, parsed.from_, parsed.files)
    refuse_shape(argv)
    if "--train.steps" in flags(argv):
        if "--data.epochs" in flags(argv) and recipe.instructions.epochs:
            raise ValueError("--train.steps and --data.epochs both say how long: leave one out.")
        recipe = replace(recipe, data=replace(recipe.instructions, epochs=0.0))
    return recipe, parsed


def refuse_shape(argv: list[str]) -> None:
    """Raise ValueError for a flag that a run which begins with a base would not obey."""
    for flag in sorted(flags(argv)):
        if flag.startswith("--model.") and flag != "--model.dropout":
            raise ValueError(f"{flag} has no effect: the model has the shape of its base.")


def flags(argv: list[str]) -> set[str]:
    """The options among the arguments, without their values, as they are spelled in the help."""
    return {part.split("=")[0].replace("_", "-") for part in argv if part.startswith("--")}
