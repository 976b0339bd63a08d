"""The training loop: exact resume, the mean loss of a step, and signals that lose nothing."""

import gc
import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.processes import fingerprint, kill_at, losses, start, wait_for_step
from tests.small_models import with_train

from gnano.config.recipe import Recipe, load_recipe
from gnano.config.train_config import LRSchedule
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.train.distributed.context import DistContext, pause_gc
from gnano.train.train_step import PrefetchLoader, TrainState
from gnano.train.trainer import train
from gnano.utils.platform_support import compile_unsupported_reason

STEPS = 240  # of a run that is killed: some seconds
SINGLE = DistContext(torch.device("cpu"))


def take_step(state: TrainState, dataset: PackedDataset, step: int) -> tuple[float, float]:
    """Take one step of a single process; return its loss and gradient norm."""
    loader = PrefetchLoader(dataset, state.world, state.recipe.train)
    batches = loader.next_micro_batches(step)
    loss, norm, skipped, stop = state.train_step(batches, step).tolist()
    assert not skipped and not stop
    return loss, norm


@pytest.fixture(scope="module")
def long_recipe(recipe: Recipe) -> Recipe:
    return with_train(recipe, steps=STEPS, save_every=50, eval_every=20)


@pytest.fixture(scope="module")
def reference_run(long_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    run = tmp_path_factory.mktemp("reference") / "run"
    assert train(long_recipe, run).is_finished
    return run


@pytest.mark.slow
def test_resume_after_kills_is_bit_identical(
    long_recipe: Recipe, reference_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    kill_at(long_recipe, run, step=65)
    kill_at(long_recipe, run, step=170)
    result = train(long_recipe, run)
    assert result.start_step in (100, 150)  # that of step 150 may be incomplete
    assert fingerprint(result.checkpoint) == fingerprint(
        reference_run / "checkpoints" / result.checkpoint.name
    )
    assert losses(run) == losses(reference_run)


def test_kills_are_in_different_epochs(long_recipe: Recipe) -> None:
    """So that the test above crosses the end of an epoch between checkpoints and kills."""
    corpus = TokenizedCorpus(Path(long_recipe.pretraining_data.folder))
    dataset = PackedDataset(
        corpus,
        long_recipe.pretraining_data.weights,
        long_recipe.pretraining_data.seed,
        long_recipe.model.block_size,
    )
    per_step = long_recipe.train.tokens_per_step // long_recipe.model.block_size
    epochs = {dataset.sampler.locate(step * per_step).epoch for step in (0, 50, 150, STEPS)}
    assert len(epochs) >= 3


@pytest.mark.slow
def test_stop_and_resume_in_one_process_is_bit_identical(
    long_recipe: Recipe, reference_run: Path, tmp_path: Path
) -> None:
    def interrupt(figures: dict[str, object]) -> None:
        if figures["step"] in (77, 140):
            signal.raise_signal(signal.SIGINT)

    run = tmp_path / "run"
    first = train(long_recipe, run, interrupt)
    assert (first.step, first.stopped_by, first.is_finished) == (77, signal.SIGINT, False)
    second = train(long_recipe, run, interrupt)
    assert (second.start_step, second.step) == (77, 140)
    last = train(long_recipe, run)
    assert fingerprint(last.checkpoint) == fingerprint(
        reference_run / "checkpoints" / last.checkpoint.name
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signal_stops_the_run_with_a_checkpoint(
    long_recipe: Recipe, tmp_path: Path, number: signal.Signals
) -> None:
    def interrupt(row: dict[str, object]) -> None:
        if row["step"] == 6:
            signal.raise_signal(number)

    result = train(long_recipe, tmp_path / "run", interrupt)
    assert (result.step, result.stopped_by) == (6, number)
    assert result.checkpoint.name == "step-00000006" and result.checkpoint.is_dir()


@pytest.mark.slow
def test_signal_sets_the_exit_code(long_recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(long_recipe, run)
    wait_for_step(run, 60, process)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    newest = max((run / "checkpoints").iterdir()).name
    assert int(newest.removeprefix("step-")) == max(losses(run)) < STEPS


@pytest.mark.slow
def test_stop_before_the_first_step_saves_a_checkpoint(
    long_recipe: Recipe, reference_run: Path, tmp_path: Path
) -> None:
    def stop(text: str, waiting: bool = False) -> None:
        signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    result = train(long_recipe, run, notify=stop)
    assert (result.step, result.is_finished) == (0, False)
    assert result.checkpoint.is_dir()
    again = train(long_recipe, run, notify=stop)
    assert (again.step, again.checkpoint) == (0, result.checkpoint)

    def interrupt(row: dict[str, object]) -> None:
        if row["step"] == 20:
            signal.raise_signal(signal.SIGTERM)

    assert train(with_train(long_recipe, keep_last=1), run, interrupt).start_step == 0
    expected = losses(reference_run)
    assert losses(run) == {step: expected[step] for step in range(1, 21)}


@pytest.mark.slow
def test_signal_before_the_first_step_sets_the_exit_code(
    long_recipe: Recipe, tmp_path: Path
) -> None:
    """Nothing is logged yet, so there is no report either."""
    run = tmp_path / "run"
    process = start(with_train(long_recipe, steps=10**6), run)
    while not (run / "events.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 143, output
    assert "Traceback" not in output


def test_finished_run_is_unchanged(long_recipe: Recipe, reference_run: Path) -> None:
    def files() -> dict[Path, int]:
        found = (p for p in reference_run.rglob("*") if p.is_file() and p.name != "run.lock")
        return {p: p.stat().st_mtime_ns for p in found}

    before = files()
    result = train(long_recipe, reference_run)
    assert result.is_finished and result.start_step == STEPS
    assert files() == before


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-3)])
def test_micro_batch_size_changes_only_rounding(
    recipe: Recipe, precision: str, tolerance: float
) -> None:
    """One step of 16 sequences, in 1, 4 and 16 micro-batches."""
    shape = replace(recipe.model, dropout=0.0)
    corpus = TokenizedCorpus(Path(recipe.pretraining_data.folder))
    dataset = PackedDataset(corpus, recipe.pretraining_data.weights, 0, shape.block_size)
    schedule = LRSchedule(peak=1e-3, warmup=0, floor=1.0)
    recipe = with_train(replace(recipe, model=shape), precision=precision, schedule=schedule)
    results = []
    for size in (16, 4, 1):
        state = TrainState(with_train(recipe, micro_batch_size=size), Path("no run"), SINGLE)
        loss_and_norm = take_step(state, dataset, step=3)
        weights = torch.cat([p.detach().flatten() for p in state.model.parameters()])
        results.append((*loss_and_norm, weights))
    for loss, norm, weights_after in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=tolerance)
        assert norm == pytest.approx(results[0][1], rel=10 * tolerance)
        if precision == "fp32":
            torch.testing.assert_close(weights_after, results[0][2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("packing", ["stream", "best-fit"])
@pytest.mark.parametrize("inside", [False, True])
def test_reported_loss_matches_brute_force_mean(recipe: Recipe, packing: Any, inside: bool) -> None:
    shape = replace(recipe.model, dropout=0.0)
    corpus = TokenizedCorpus(Path(recipe.pretraining_data.folder))
    dataset = PackedDataset(
        corpus, recipe.pretraining_data.weights, 0, shape.block_size, packing, inside
    )
    state = TrainState(replace(recipe, model=shape), Path("no run"), SINGLE)
    samples = range(5 * 16, 6 * 16)
    x, y, segments = dataset.read_batch(samples)
    assert (segments is not None) == inside
    logits = state.model(x, document_ids_BT=segments).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, y.flatten())
    loss, _ = take_step(state, dataset, 5)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_training_lowers_the_heldout_loss(reference_run: Path) -> None:
    rows = [json.loads(line) for line in (reference_run / "metrics.jsonl").read_text().splitlines()]
    heldout = [row["heldout"]["bits_per_byte"] for row in rows if "heldout" in row]
    assert heldout[-1] < 0.95 * heldout[0]
    assert rows[-1]["final"] and rows[-1]["step"] == STEPS


@pytest.mark.slow
def test_diverging_run_fails_with_advice(recipe: Recipe, tmp_path: Path) -> None:
    schedule = replace(recipe.train.schedule, peak=1e30)
    with pytest.raises(ValueError, match=r"infinite or NaN in step \d+ and stayed .* Lower"):
        train(with_train(recipe, schedule=schedule), tmp_path / "run")


def test_saved_recipe_reproduces_the_run(
    long_recipe: Recipe, reference_run: Path, tmp_path: Path
) -> None:
    again = load_recipe(str(reference_run / "recipe.toml"))
    assert again == long_recipe
    short = with_train(again, save_every=10_000)
    stop_at = 20

    def interrupt(figures: dict[str, object]) -> None:
        if figures["step"] == stop_at:
            signal.raise_signal(signal.SIGTERM)

    train(short, tmp_path / "run", interrupt)
    seen = losses(tmp_path / "run")
    assert seen == {step: losses(reference_run)[step] for step in range(1, stop_at + 1)}


@pytest.mark.slow
@pytest.mark.compile
@pytest.mark.skipif(
    compile_unsupported_reason(torch.device("cpu")) is not None, reason="no C++ compiler"
)
def test_compiled_bf16_resume_is_bit_identical(recipe: Recipe, tmp_path: Path) -> None:
    """With evaluations before and after the checkpoint, as a long run has by default."""
    changes = {"precision": "bf16", "compile": "yes", "steps": 8, "save_every": 4, "eval_every": 3}
    recipe = with_train(recipe, **changes)
    reference_run = train(recipe, tmp_path / "reference")
    run = Path(shutil.copytree(tmp_path / "reference", tmp_path / "run"))
    shutil.rmtree(run / "checkpoints" / reference_run.checkpoint.name)
    result = train(with_train(recipe, eval_every=2), run)  # which does not change the weights
    assert (result.start_step, result.step) == (4, 8)
    assert fingerprint(result.checkpoint) == fingerprint(reference_run.checkpoint)
    assert losses(run) == losses(tmp_path / "reference")


def test_garbage_is_collected_only_on_request() -> None:
    collected: list[int] = []

    class Cycle:
        def __del__(self) -> None:
            collected.append(1)

    assert gc.isenabled()
    with pause_gc():
        assert not gc.isenabled()
        for _ in range(3_000):  # more than any threshold of the collector
            cycle = Cycle()
            cycle.itself = cycle  # type: ignore[attr-defined]
        del cycle
        assert collected == []
        gc.collect()
        assert len(collected) == 3_000
    assert gc.isenabled() and gc.get_freeze_count() == 0
