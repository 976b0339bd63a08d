"""A flipped byte or a missing file, in any file of a run, is reported and survived."""

import shutil
from pathlib import Path

import pytest
from tests.chaos.faults import Fault
from tests.chaos.runs import history, output, run
from tests.processes import fingerprint

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.recipe import Recipe

pytestmark = pytest.mark.slow

LONG = 20  # kills of the long form
UNITS = {"flipped": "byte", "missing": "file"}


@pytest.fixture(scope="module")
def killed(chaos_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed halfway, with two checkpoints and all its files."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    assert run(chaos_recipe, folder, Fault("in a step", 30)) == [-9]
    return folder


def files(folder: Path) -> list[str]:
    """Return all kinds of files of a run, including those of its newest checkpoint."""
    newest = find_checkpoint(folder)
    paths = [*folder.glob("*.*"), *newest.rglob("*.*")]
    return [str(p.relative_to(folder)) for p in paths if p.is_file()]


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damage_to_every_kind_of_file_is_reported_and_survived(
    chaos_recipe: Recipe,
    reference_run: Path,
    killed: Path,
    kills: int,
    tmp_path: Path,
    damage: str,
    survived: list[str],
) -> None:
    for number, name in enumerate(files(killed)):
        if kills < LONG and number % 2 != (damage == "missing"):
            continue  # short form: every file once, flipped or missing
        folder = Path(shutil.copytree(killed, tmp_path / str(number)))
        file = folder / name
        if damage == "missing":
            file.unlink()
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        [code] = run(chaos_recipe, folder)
        printed = output(folder)
        kind = name if "/" not in name else f"checkpoint's {Path(name).name}"
        survived.append(f"{damage} {UNITS[damage]}: {kind}")
        if (name, damage) == ("recipe.toml", "flipped"):
            # the settings of the run are unknown: it is refused, and the file named
            assert code == 2 and "recipe.toml" in printed and "Traceback" not in printed, printed
            shutil.copy(killed / name, file)
            code = run(chaos_recipe, folder)[0]
        if name.startswith("checkpoints/"):
            assert name.split("/")[1] in printed, printed
        assert code == 0, (name, printed)
        assert fingerprint(find_checkpoint(folder)) == fingerprint(
            find_checkpoint(reference_run)
        ), name
        if name != "metrics.jsonl":
            assert history(folder) == history(reference_run), name
        shutil.rmtree(folder)
