"""The recipe in a run's folder: damage is found and named, an older version's is understood."""

import re
import tomllib
from pathlib import Path

import pytest
import tomli_w
import torch
from tests.small_models import settled

from gnano.config.recipe import Recipe
from gnano.train.distributed.context import DistContext
from gnano.train.tasks.pretraining import PretrainingTask

ALONE = DistContext(torch.device("cpu"))


@pytest.fixture
def texts(recipe: Recipe) -> PretrainingTask:
    return PretrainingTask(recipe.pretraining_data, recipe.model.block_size, base=None)


@pytest.mark.parametrize(
    ("pattern", "becomes"),
    [
        (b"(?s).*", b""),
        (b"steps = ", b"steps # "),
        (b"grad_clip =", b"grad_clap ="),
        (b"\\[run\\]", b"[ran]"),
        (b"data_fingerprint", b"data_fingerprinu"),
        (b'kind = "cosine"', b'kind = "cosinf"'),
        (b"fp32", b"fp\xff2"),
    ],
)
def test_a_damaged_recipe_of_a_run_is_named_with_what_to_do(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path, pattern: bytes, becomes: bytes
) -> None:
    run = tmp_path / "run"
    settled(recipe, run, texts, ALONE)
    file = run / "recipe.toml"
    damaged = re.sub(pattern, lambda _: becomes, file.read_bytes(), count=1)
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    with pytest.raises(ValueError) as refused:
        settled(recipe, run, texts, ALONE)
    said = str(refused.value)
    assert said.startswith(f"{file} is damaged") and "delete it" in said
    assert file.read_bytes() == damaged
    assert "\n" not in said and said.endswith(".")
    file.unlink()
    assert settled(recipe, run, texts, ALONE) == recipe


def test_no_flipped_bit_of_a_recipe_passes_for_another_recipe(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    settled(recipe, run, texts, ALONE)
    whole = (run / "recipe.toml").read_bytes()
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        (run / "recipe.toml").write_bytes(flipped)
        try:  # it may have hit a fact, or what is free to change
            assert settled(recipe, run, texts, ALONE) == recipe
        except ValueError as error:
            assert str(run) in str(error)


def test_a_run_of_an_older_version_goes_on(
    recipe: Recipe, texts: PretrainingTask, tmp_path: Path
) -> None:
    """What its recipe.toml does not know of yet is at its default."""
    run = tmp_path / "run"
    settled(recipe, run, texts, ALONE)
    old = tomllib.loads((run / "recipe.toml").read_text())
    del old["train"]["stability"], old["train"]["keep_best"]
    del old["data"]["document_attention_mask"]
    (run / "recipe.toml").write_text(tomli_w.dumps(old))
    assert settled(recipe, run, texts, ALONE) == recipe
