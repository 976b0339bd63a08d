"""The promises of the loop: exact resume, an honest mean, and Ctrl-C that loses nothing."""

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
from gnano.data.packed_dataset import PackedDataset
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.model.devices import compile_unsupported_reason
from gnano.model.transformer import GPT
from gnano.train.data_loader import PrefetchLoader
from gnano.train.distributed.context import DistContext
from gnano.train.distributed.parallel import parallelize
from gnano.train.optim.builder import Optimizer
from gnano.train.train_step import TrainStep
from gnano.train.trainer import train

LONG = 300  # steps of a run that is to be killed: some seconds


def one_step(
    recipe: Recipe, batches: PackedDataset, model: GPT, step: int, lr: float
) -> tuple[float, float]:
    """Loss and gradient norm of one step of a process on its own."""
    settings, alone = recipe.train, DistContext(torch.device("cpu"))
    take = TrainStep(
        parallelize(model, alone, "auto", None),
        Optimizer(model, settings.optimizer),
        alone,
        tokens_per_step=settings.tokens_per_step,
        grad_clip=settings.grad_clip,
    )
    loss, norm, skipped, stop = take.run(
        PrefetchLoader(batches, alone, settings).next_micro_batches(step), lr
    ).tolist()
    assert not skipped and not stop
    return loss, norm


@pytest.fixture(scope="module")
def long(recipe: Recipe) -> Recipe:
    return with_train(recipe, steps=LONG, save_every=50, eval_every=20)


@pytest.fixture(scope="module")
def straight(long: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing ever happened to."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert train(long, run).is_finished
    return run


def test_a_run_killed_twice_gives_the_same_weights_bit_for_bit(
    long: Recipe, straight: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    kill_at(long, run, step=65)
    kill_at(long, run, step=170)
    result = train(long, run)
    assert result.start_step in (100, 150)  # that of step 150 may not have been whole yet
    assert fingerprint(result.checkpoint) == fingerprint(
        straight / "checkpoints" / result.checkpoint.name
    )
    assert losses(run) == losses(straight)


def test_the_kills_came_in_different_epochs(long: Recipe) -> None:
    """So that the test above does cross an epoch's end between checkpoints and kills."""
    corpus = TokenizedCorpus(Path(long.pretraining_data.folder))
    batches = PackedDataset(
        corpus, long.pretraining_data.weights, long.pretraining_data.seed, long.model.block_size
    )
    per_step = long.train.tokens_per_step // long.model.block_size
    epochs = {batches.sampler.locate(step * per_step).epoch for step in (0, 50, 150, LONG)}
    assert len(epochs) >= 3


def test_stopping_and_going_on_in_one_process_gives_the_same_weights(
    long: Recipe, straight: Path, tmp_path: Path
) -> None:
    def interrupt(figures: dict[str, object]) -> None:
        if figures["step"] in (77, 140):
            signal.raise_signal(signal.SIGINT)

    run = tmp_path / "run"
    first = train(long, run, interrupt)
    assert (first.step, first.stopped_by, first.is_finished) == (77, signal.SIGINT, False)
    second = train(long, run, interrupt)
    assert (second.start_step, second.step) == (77, 140)
    last = train(long, run)
    assert fingerprint(last.checkpoint) == fingerprint(
        straight / "checkpoints" / last.checkpoint.name
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_the_run_with_a_checkpoint_and_its_exit_code(
    long: Recipe, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    process = start(long, run)
    wait_for_step(run, 60, process)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    newest = max((run / "checkpoints").iterdir()).name
    assert int(newest.removeprefix("step-")) == max(losses(run)) < LONG


def test_a_stop_before_the_first_step_leaves_a_checkpoint_to_begin_from(
    long: Recipe, straight: Path, tmp_path: Path
) -> None:
    def at_once(text: str, waiting: bool = False) -> None:
        signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    result = train(long, run, notify=at_once)
    assert (result.step, result.is_finished) == (0, False)
    assert result.checkpoint.is_dir()
    again = train(long, run, notify=at_once)  # and once more
    assert (again.step, again.checkpoint) == (0, result.checkpoint)
    assert train(with_train(long, keep_last=1), run).start_step == 0
    assert losses(run) == losses(straight)


def test_a_run_that_is_stopped_while_it_waits_for_data_ends_with_the_signal_s_code(
    long: Recipe, tmp_path: Path
) -> None:
    """Nothing was logged yet, so there is no page of it either."""
    run = tmp_path / "run"
    process = start(with_train(long, steps=10**6), run)
    while not (run / "events.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 143, output
    assert "Traceback" not in output


def test_a_finished_run_is_left_as_it_is(long: Recipe, straight: Path) -> None:
    def files() -> dict[Path, int]:
        found = (p for p in straight.rglob("*") if p.is_file() and p.name != "run.lock")
        return {p: p.stat().st_mtime_ns for p in found}

    before = files()
    result = train(long, straight)
    assert result.is_finished and result.start_step == LONG
    assert files() == before


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)])
def test_the_size_of_a_micro_batch_changes_nothing_but_rounding(
    recipe: Recipe, dtype: torch.dtype, near: float
) -> None:
    """One step of 16 sequences: at once, in 4 parts, one by one."""
    shape = replace(recipe.model, dropout=0.0)
    corpus = TokenizedCorpus(Path(recipe.pretraining_data.folder))
    batches = PackedDataset(corpus, recipe.pretraining_data.weights, 0, shape.block_size)
    results = []
    for micro_batch in (16, 4, 1):
        torch.manual_seed(0)
        model = GPT.from_config(shape)
        model.compute_dtype = dtype
        changed = with_train(replace(recipe, model=shape), micro_batch_size=micro_batch)
        figures = one_step(changed, batches, model, step=3, lr=1e-3)
        results.append((*figures, torch.cat([p.detach().flatten() for p in model.parameters()])))
    for loss, norm, weights_after in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=near)
        assert norm == pytest.approx(results[0][1], rel=10 * near)
        if dtype == torch.float32:
            torch.testing.assert_close(weights_after, results[0][2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("packing", ["stream", "best-fit"])
@pytest.mark.parametrize("inside", [False, True])
def test_the_reported_loss_is_the_mean_over_the_batch_that_a_brute_force_finds(
    recipe: Recipe, packing: Any, inside: bool
) -> None:
    shape = replace(recipe.model, dropout=0.0)
    corpus = TokenizedCorpus(Path(recipe.pretraining_data.folder))
    batches = PackedDataset(
        corpus, recipe.pretraining_data.weights, 0, shape.block_size, packing, inside
    )
    model = GPT.from_config(shape)
    samples = range(5 * 16, 6 * 16)
    x, y, segments = batches.read_batch(samples)
    assert (segments is not None) == inside
    logits = model(x, segments_BT=segments).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, y.flatten())
    loss, _ = one_step(recipe, batches, model, 5, 0.0)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_training_lowers_the_loss_on_text_it_never_saw(straight: Path) -> None:
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    heldout = [row["heldout"]["bits_per_byte"] for row in rows if "heldout" in row]
    assert heldout[-1] < 0.95 * heldout[0]
    assert rows[-1]["final"] and rows[-1]["step"] == LONG


def test_a_diverging_run_stops_with_a_sentence(recipe: Recipe, tmp_path: Path) -> None:
    schedule = replace(recipe.train.schedule, peak=1e30)
    with pytest.raises(ValueError, match=r"infinite or NaN in step \d+ and stayed .* lower"):
        train(with_train(recipe, schedule=schedule), tmp_path / "run")


def test_the_run_folder_holds_a_recipe_that_gives_the_same_run(
    long: Recipe, straight: Path, tmp_path: Path
) -> None:
    again = load_recipe(str(straight / "recipe.toml"))
    assert again == long
    short = with_train(again, save_every=10_000)
    stop_at = 20

    def interrupt(figures: dict[str, object]) -> None:
        if figures["step"] == stop_at:
            signal.raise_signal(signal.SIGTERM)

    train(short, tmp_path / "run", interrupt)
    seen = losses(tmp_path / "run")
    assert seen == {step: losses(straight)[step] for step in range(1, stop_at + 1)}


@pytest.mark.skipif(
    compile_unsupported_reason(torch.device("cpu")) is not None, reason="no C++ compiler"
)
def test_compiled_and_in_bf16_too_a_run_that_is_gone_on_with_gives_the_same_weights(
    recipe: Recipe, tmp_path: Path
) -> None:
    """With measurements before the checkpoint and after it, as a long run has by default."""
    changes = {"precision": "bf16", "compile": "yes", "steps": 8, "save_every": 4, "eval_every": 3}
    usual = with_train(recipe, **changes)
    straight = train(usual, tmp_path / "straight")
    run = Path(shutil.copytree(tmp_path / "straight", tmp_path / "run"))
    shutil.rmtree(run / "checkpoints" / straight.checkpoint.name)
    result = train(with_train(usual, eval_every=2), run)  # which changes nothing of what is learned
    assert (result.start_step, result.step) == (4, 8)
    assert fingerprint(result.checkpoint) == fingerprint(straight.checkpoint)
    assert losses(run) == losses(tmp_path / "straight")
