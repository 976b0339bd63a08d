"""A flipped byte or a missing file, whichever a run has written, is named and survived."""

import shutil
from pathlib import Path

import pytest
from tests.chaos.faults import Fault
from tests.chaos.runs import history, output, run
from tests.processes import fingerprint

from gnano.checkpoint.format import find_checkpoint
from gnano.config.recipe import Recipe

LONG = 20  # kills, from which on it is the long form
WHAT = {"flipped": "byte", "missing": "file"}


@pytest.fixture(scope="module")
def killed(chaotic: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in the middle, with two checkpoints and all its files."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    assert run(chaotic, folder, Fault("in a step", 30)) == [-9]
    return folder


def files(folder: Path) -> list[str]:
    """Of a run: the kinds of files, its newest checkpoint's among them."""
    newest = find_checkpoint(folder)
    paths = [*folder.glob("*.*"), *newest.rglob("*.*")]
    return [str(p.relative_to(folder)) for p in paths if p.is_file()]


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damage_to_every_kind_of_file_is_named_and_survived(
    chaotic: Recipe,
    calm: Path,
    killed: Path,
    kills: int,
    tmp_path: Path,
    damage: str,
    fault: list[str],
) -> None:
    for number, name in enumerate(files(killed)):
        if kills < LONG and number % 2 != (damage == "missing"):
            continue  # short form: every kind once, one way or the other
        folder = Path(shutil.copytree(killed, tmp_path / str(number)))
        file = folder / name
        if damage == "missing":
            file.unlink()
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        [code] = run(chaotic, folder)
        said = output(folder)
        kind = name if "/" not in name else f"checkpoint's {Path(name).name}"
        fault.append(f"{damage} {WHAT[damage]}: {kind}")
        if (name, damage) == ("recipe.toml", "flipped"):
            # what the run was begun with cannot be known any more: it is refused, and named
            assert code == 2 and "recipe.toml" in said and "Traceback" not in said, said
            shutil.copy(killed / name, file)
            code = run(chaotic, folder)[0]
        if name.startswith("checkpoints/"):
            assert name.split("/")[1] in said, said
        assert code == 0, (name, said)
        assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm)), name
        if name != "metrics.jsonl":
            assert history(folder) == history(calm), name
        shutil.rmtree(folder)
