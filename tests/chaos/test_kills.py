"""Killed at any moment, as often as you like: the same command gives the same run, bit for bit."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from tests.chaos.faults import MOMENTS, Fault
from tests.chaos.runs import history, output, run
from tests.processes import fingerprint
from tests.small_models import with_train

from gnano.checkpoint.format import find_checkpoint, list_checkpoints
from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.train.run_lock import current_owner

# in which the training can be at any of its steps; the others come a few times in a run
OFTEN = ("in a step", "before the optimizer", "after the optimizer", "while data is laid out")


def drawn(kills: int, seed: int) -> list[Fault]:
    """So many kills: first those in each moment at its first time, then at random."""
    draw = random.Random(seed)
    moments = draw.sample(list(MOMENTS), len(MOMENTS))
    faults = [Fault(moment) for moment in ["in a step", *moments]]
    while len(faults) < kills:
        moment = draw.choice(list(MOMENTS))
        faults.append(Fault(moment, draw.randint(2, 12) if moment in OFTEN else 1))
    return faults[:kills]


def test_killed_again_and_again_a_run_ends_as_if_nothing_had_happened(
    chaotic: Recipe, calm: Path, kills: int, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    for planted in drawn(kills, seed=kills):
        [code] = run(chaotic, folder, planted)
        if code == 0:  # the run was over before that moment came again
            break
        assert code == -9, planted
        assert current_owner(folder) is None
        fault.append(f"kill -9: {planted.moment}")
    assert run(chaotic, folder) == [0]
    assert history(folder) == history(calm)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm))
    # nothing torn is left, and no more is kept than was asked for
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    assert sorted(names) == [path.name for path in list_checkpoints(folder)]
    assert len(names) <= chaotic.train.keep_last + 1


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_each_moment_late_in_a_run(
    chaotic: Recipe, calm: Path, kills: int, tmp_path: Path, moment: str, fault: list[str]
) -> None:
    if kills < len(MOMENTS) and moment in OFTEN:
        pytest.skip("short form: GNANO_CHAOS=20 takes every moment")
    folder = tmp_path / "run"
    [code] = run(chaotic, folder, Fault(moment, 30 if moment in OFTEN else 3))
    assert code == -9
    fault.append(f"kill -9: {moment}")
    assert run(chaotic, folder) == [0]
    assert history(folder) == history(calm)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm))


@pytest.fixture(scope="module")
def pair(chaotic: Recipe) -> Recipe:
    # dropout draws by rank: one rank and two would differ in it
    shape = replace(chaotic.model, dropout=0.0)
    return with_train(replace(chaotic, model=shape), steps=30, save_every=5, eval_every=10)


@pytest.fixture(scope="module")
def calm_pair(pair: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm") / "pair"
    assert run(pair, folder, ranks=2) == [0, 0]
    return folder


def test_two_ranks_killed_again_and_again_end_as_if_nothing_had_happened(
    pair: Recipe, calm_pair: Path, kills: int, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    draw = random.Random(kills)
    for planted in drawn(max(kills // 2, 2), seed=100 + kills):
        on = draw.randrange(2) if planted.moment in OFTEN else 0  # the first alone saves
        codes = run(pair, folder, planted, ranks=2, on=on)
        if codes == [0, 0]:
            break
        assert codes[on] == -9 and codes[1 - on] not in (0, None), (planted, codes)
        fault.append(f"kill -9 of one of two ranks: {planted.moment}")
    assert run(pair, folder, ranks=2) == [0, 0]
    assert history(folder) == history(calm_pair)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm_pair))


def test_killed_on_two_ranks_a_run_goes_on_with_one_and_then_with_four(
    pair: Recipe, calm_pair: Path, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    pair = with_train(pair, micro_batch_size=4)  # so that four can share a step
    planted = Fault("after the optimizer", 12)
    assert run(pair, folder, planted, ranks=2)[0] == -9
    assert run(pair, folder, planted) == [-9]
    assert run(pair, folder, ranks=4) == [0] * 4
    fault += [
        "kill -9, then another number of ranks: 2 → 1",
        "kill -9, then another number of ranks: 1 → 4",
    ]
    for ours, theirs in zip(history(folder), history(calm_pair), strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)


@pytest.fixture(scope="module", params=["instructions", "an adapter", "preferences"])
def tuned(request: pytest.FixtureRequest, tuning: Recipe, preferring: Recipe) -> Recipe:
    if request.param == "preferences":
        return preferring
    return with_train(tuning, lora=LoraConfig(rank=4 * (request.param == "an adapter")))


@pytest.fixture(scope="module")
def calm_tuning(tuned: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm") / "tuned"
    assert run(tuned, folder) == [0], output(folder)
    return folder


def test_tuning_that_was_killed_again_and_again_ends_as_if_nothing_had_happened(
    tuned: Recipe, calm_tuning: Path, kills: int, tmp_path: Path, fault: list[str]
) -> None:
    folder = tmp_path / "run"
    killed = 0
    for planted in drawn(max(kills // 2, 3), seed=200 + kills):
        [code] = run(tuned, folder, planted)
        if code == 0:  # it is short, and was over before that moment came
            continue
        assert code == -9, (planted, output(folder))
        fault.append(f"kill -9 while tuning: {planted.moment}")
        killed += 1
    assert killed
    assert run(tuned, folder) == [0], output(folder)
    assert history(folder) == history(calm_tuning)
    assert fingerprint(find_checkpoint(folder)) == fingerprint(find_checkpoint(calm_tuning))
