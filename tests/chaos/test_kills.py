"""Killed at any moment, any number of times, a run ends with the same weights, bit for bit."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.chaos.faults import MOMENTS, Fault
from tests.chaos.runs import history, output, run
from tests.processes import fingerprint
from tests.small_models import with_train

from gnano.checkpoint.run_checkpoints import find_checkpoint, list_checkpoints
from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.train.run_dir import current_owner

pytestmark = pytest.mark.slow

# reached in every step; the others are reached a few times in a run
EVERY_STEP = ("in a step", "before the optimizer", "after the optimizer", "while a batch is loaded")


def random_faults(kills: int, seed: int) -> list[Fault]:
    """Return this many kills: first one at each moment, then at random."""
    generator = random.Random(seed)
    moments = generator.sample(list(MOMENTS), len(MOMENTS))
    faults = [Fault(moment) for moment in ["in a step", *moments]]
    while len(faults) < kills:
        moment = generator.choice(list(MOMENTS))
        faults.append(Fault(moment, generator.randint(2, 12) if moment in EVERY_STEP else 1))
    return faults[:kills]


def test_a_run_killed_again_and_again_ends_like_one_without_faults(
    chaos_recipe: Recipe, reference_run: Path, kills: int, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    for planted in random_faults(kills, seed=kills):
        [code] = run(chaos_recipe, folder, planted)
        if code == 0:  # the run ended before it reached the moment again
            break
        assert code == -9, planted
        assert current_owner(folder) is None
        survived.append(f"kill -9: {planted.moment}")
    assert run(chaos_recipe, folder) == [0]
    assert history(folder) == history(reference_run)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(reference_run))
    # no partial folder is left, and only what retention keeps
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    assert sorted(names) == [path.name for path in list_checkpoints(folder)]
    assert len(names) <= chaos_recipe.train.keep_last + 1


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_killed_at_each_moment_late_in_the_run(
    chaos_recipe: Recipe,
    reference_run: Path,
    kills: int,
    tmp_path: Path,
    moment: str,
    survived: list[str],
) -> None:
    if kills < len(MOMENTS) and moment in EVERY_STEP:
        pytest.skip("short form: GNANO_CHAOS=20 takes every moment")
    folder = tmp_path / "run"
    [code] = run(chaos_recipe, folder, Fault(moment, 30 if moment in EVERY_STEP else 3))
    assert code == -9
    survived.append(f"kill -9: {moment}")
    assert run(chaos_recipe, folder) == [0]
    assert history(folder) == history(reference_run)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(reference_run))


@pytest.fixture(scope="module")
def pair_recipe(chaos_recipe: Recipe) -> Recipe:
    # dropout differs by rank, so one rank and two would differ
    shape = replace(chaos_recipe.model, dropout=0.0)
    return with_train(replace(chaos_recipe, model=shape), steps=30, save_every=5, eval_every=10)


@pytest.fixture(scope="module")
def pair_reference(pair_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "pair"
    assert run(pair_recipe, folder, ranks=2) == [0, 0]
    return folder


@pytest.mark.ranks
def test_two_ranks_killed_again_and_again_end_like_a_run_without_faults(
    pair_recipe: Recipe, pair_reference: Path, kills: int, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    generator = random.Random(kills)
    for planted in random_faults(max(kills // 2, 2), seed=100 + kills):
        on = generator.randrange(2) if planted.moment in EVERY_STEP else 0  # only rank 0 saves
        codes = run(pair_recipe, folder, planted, ranks=2, on=on)
        if codes == [0, 0]:
            break
        assert codes[on] == -9 and codes[1 - on] not in (0, None), (planted, codes)
        survived.append(f"kill -9 of one of two ranks: {planted.moment}")
    assert run(pair_recipe, folder, ranks=2) == [0, 0]
    assert history(folder) == history(pair_reference)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(pair_reference))


@pytest.mark.ranks
def test_a_run_killed_on_two_ranks_resumes_on_one_and_then_on_four(
    pair_recipe: Recipe, pair_reference: Path, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    pair_recipe = with_train(pair_recipe, micro_batch_size=4)  # so that four ranks can share a step
    planted = Fault("after the optimizer", 12)
    assert run(pair_recipe, folder, planted, ranks=2)[0] == -9
    assert run(pair_recipe, folder, planted) == [-9]
    assert run(pair_recipe, folder, ranks=4) == [0] * 4
    survived += [
        "kill -9, then another number of ranks: 2 → 1",
        "kill -9, then another number of ranks: 1 → 4",
    ]
    for ours, theirs in zip(history(folder), history(pair_reference), strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


@pytest.fixture(scope="module", params=["instructions", "an adapter", "preferences"])
def tuning_recipe(request: pytest.FixtureRequest, sft_recipe: Recipe, dpo_recipe: Recipe) -> Recipe:
    if request.param == "preferences":
        return dpo_recipe
    return with_train(sft_recipe, lora=LoraConfig(rank=4 * (request.param == "an adapter")))


@pytest.fixture(scope="module")
def tuning_reference(tuning_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "tuned"
    assert run(tuning_recipe, folder) == [0], output(folder)
    return folder


def test_fine_tuning_killed_again_and_again_ends_like_a_run_without_faults(
    tuning_recipe: Recipe, tuning_reference: Path, kills: int, tmp_path: Path, survived: list[str]
) -> None:
    folder = tmp_path / "run"
    killed = 0
    for planted in random_faults(max(kills // 2, 3), seed=200 + kills):
        [code] = run(tuning_recipe, folder, planted)
        if code == 0:  # the run is short, and ended before it reached the moment
            continue
        assert code == -9, (planted, output(folder))
        survived.append(f"kill -9 during fine-tuning: {planted.moment}")
        killed += 1
    assert killed
    assert run(tuning_recipe, folder) == [0], output(folder)
    assert history(folder) == history(tuning_reference)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(tuning_reference))
