"""Parses command arguments: a function's parameters, or a recipe with any value overridden.

Both come from signatures and dataclasses through tyro, so a field's comment is its help text and a
recipe's key is its flag: `train.steps` in TOML, `--train.steps` here.
"""

import os
from dataclasses import make_dataclass, replace
from inspect import cleandoc
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gnano.config.inference_config import EvalConfig, LoadConfig, SamplingParams
from gnano.config.recipe import Recipe, list_recipes, load_recipe
from gnano.config.serve_config import ServeConfig
from gnano.utils.terminal import echo_stderr

PATH_REGISTRY = ConstructorRegistry()
PathArg = Annotated[Path, tyro.conf.Positional]
MODEL_HELP = "A run, a checkpoint, a model folder, a weight file, or owner/name on the Hub."
ModelArg = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help=MODEL_HELP)]
ModelArgs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(help=MODEL_HELP)]
TokensArg = Annotated[int, tyro.conf.arg(aliases=["-n"])]
JsonFlag = Annotated[bool, tyro.conf.arg(name="json", help="Print JSON.")]
# the fields of these become options of the command itself
SamplingArgs = Annotated[SamplingParams, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
EvalArgs = Annotated[EvalConfig, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
LoadArgs = Annotated[LoadConfig, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]

ServeArgs = Annotated[ServeConfig, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]


@PATH_REGISTRY.primitive_rule
def _path_constructor(type_info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
    """Expand a leading ~, which a shell leaves unexpanded in --out=~/x and in quotes."""
    if type_info.type is not Path:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        # `Path.expanduser` raises for an unknown user
        instance_from_str=lambda words: Path(os.path.expanduser(words[0])),  # noqa: PTH111
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def parse_recipe(
    command: str,
    description: str | None,
    argv: list[str],
    recipe_name: str | None = None,
    **options: Any,
) -> tuple[Recipe, SimpleNamespace]:
    """Parse `RECIPE --model.… --data.… --train.…` and the options of the command.

    The recipe is the first argument unless `recipe_name` fixes it. `description` is a docstring;
    `options` maps a name to (type, default, help). Returns the recipe with its overrides, and
    the values of the options.
    """
    usage = f"gnano {command}"
    if recipe_name is None:
        usage += " RECIPE"
        if argv and not argv[0].startswith("-"):
            recipe_name, argv = argv[0], argv[1:]
            usage = f"gnano {command} {recipe_name}"
        elif not {"-h", "--help"} & set(argv):
            raise ValueError(
                f"Name a recipe: {usage}. The recipes are {', '.join(list_recipes())}; the path of "
                f"a TOML file works too."
            )
    recipe = load_recipe(recipe_name) if recipe_name else Recipe()
    fields: list[Any] = [
        (name, Annotated[kind, tyro.conf.arg(name=name.rstrip("_"), help=text)], default)
        for name, (kind, default, text) in options.items()
    ]
    fields += [(table, type(value), value) for table, value in vars(recipe).items()]
    arguments: Any = make_dataclass("Arguments", fields, frozen=True, kw_only=True)
    text = cleandoc(description or "")
    parsed = tyro.cli(arguments, prog=usage, description=text, args=argv, registry=PATH_REGISTRY)
    recipe = Recipe(**{table: getattr(parsed, table) for table in vars(recipe)})
    return recipe, SimpleNamespace(**{name: getattr(parsed, name) for name in options})


def model_folder(name: Path | str) -> Path:
    """Return the run or folder of a model named on the command line."""
    from gnano.export.model_resolver import resolve_model

    return resolve_model(name, echo_stderr)


def with_base_folder(recipe: Recipe, run: Path) -> Recipe:
    """Return the recipe with the folder of its base, which `train.init_from` names.

    A started run keeps the commit of the Hub that it started from.
    """
    from gnano.export.model_resolver import is_commit_of
    from gnano.train.run_dir import RECIPE_FILE, has_started, read_run_metadata

    name = recipe.train.init_from
    if not name:
        return recipe
    started = read_run_metadata(run / RECIPE_FILE).recipe.train if has_started(run) else None
    is_known = started is not None and is_commit_of(Path(started.init_from), name)
    folder = started.init_from if started and is_known else str(model_folder(name))
    return replace(recipe, train=replace(recipe.train, init_from=folder))


def run_options(argv: list[str]) -> dict[str, Any]:
    """Return the options of every training: its folder, and the changes it may resume with."""
    recipe = Path(argv[0]).stem if argv and not argv[0].startswith("-") else "RECIPE"
    allow = "keys or tables of the recipe that may differ from those of the run"
    return {
        "out": (Path, Path("runs") / recipe, "folder of the run"),
        "allow": (tuple[str, ...], (), allow),
    }


def parse_finetune_recipe(
    command: str, description: str | None, argv: list[str], **options: Any
) -> tuple[Recipe, SimpleNamespace]:
    """Parse `RECIPE --from BASE --files … --out …`, and what `parse_recipe` parses."""
    recipe, parsed = parse_recipe(
        command,
        description,
        argv,
        from_=(str, "", "the model to start from: a run, a folder, or owner/name on the Hub"),
        files=(tuple[str, ...], (), "training records that replace the recipe's sources"),
        **run_options(argv),
        **options,
    )
    recipe = with_base_folder(recipe.for_tuning(command, parsed.from_, parsed.files), parsed.out)
    refuse_shape_flags(argv)
    if "--train.steps" in flag_names(argv):
        if "--data.epochs" in flag_names(argv) and recipe.tuning_data.epochs:
            raise ValueError("--train.steps and --data.epochs both set the length: leave one out.")
        recipe = replace(recipe, data=replace(recipe.tuning_data, epochs=0.0))
    return recipe, parsed


def refuse_shape_flags(argv: list[str]) -> None:
    """Raise ValueError for a shape flag, which a run that starts from a base would ignore."""
    for flag in sorted(flag_names(argv)):
        if flag.startswith("--model.") and flag != "--model.dropout":
            raise ValueError(f"{flag} has no effect: the model has the shape of its base.")


def flag_names(argv: list[str]) -> set[str]:
    """Return the flags among the arguments, without values, spelled as in the help."""
    return {part.split("=")[0].replace("_", "-") for part in argv if part.startswith("--")}
