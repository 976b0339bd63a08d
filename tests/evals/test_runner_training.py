"""Task accuracies during training are in the metrics log and do not depend on the ranks."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.evals.conftest import made_items
from tests.processes import start_ranks, wait_for_outputs
from tests.small_models import with_train

from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.config.recipe import Recipe
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import build_task_evaluator, evaluate
from gnano.train.trainer import train

pytestmark = pytest.mark.slow


def write_task_files(folder: Path) -> tuple[str, str]:
    """Write items that fit a context of 32 tokens, and a second task with one answer each."""
    rows: list[dict[str, Any]] = [
        {"query": f"number {n}", "choices": [a.split(" in ")[0] for a in i.answers], "gold": i.gold}
        for n, i in enumerate(made_items(50))
    ]
    cloze = [{"context": f"the {n} river", "continuation": "stone"} for n in range(9)]
    for name, records in (("mine", rows), ("lambada", cloze)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return f"mine={folder}/mine.jsonl", f"{folder}/lambada.jsonl"


@pytest.fixture
def task_recipe(recipe: Recipe, tmp_path: Path) -> Recipe:
    """A recipe that evaluates 40 items every 4 of 10 steps, and held-out text at other steps."""
    return with_train(
        replace(recipe, model=replace(recipe.model, dropout=0.0)),
        steps=10,
        micro_batch_size=2,
        eval_every=6,
        save_every=100,
        eval_tasks=write_task_files(tmp_path),
        eval_tasks_every=4,
        eval_tasks_limit=40,
    )


def read_rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def read_tasks(run: Path) -> dict[int, dict[str, Any]]:
    return {row["step"]: row["tasks"] for row in read_rows(run) if "tasks" in row}


def test_tasks_are_evaluated_on_schedule_and_as_by_gnano_eval(task_recipe, tmp_path):
    run = train(task_recipe, tmp_path / "run", build_task_evaluator=build_task_evaluator).run
    by_step = read_tasks(run)
    assert list(by_step) == [4, 8, 10]
    assert [row["step"] for row in read_rows(run) if "heldout" in row] == [6, 10]
    model = load_eval_model(run, LoadConfig(dtype="fp32"))
    config = EvalConfig(files=task_recipe.train.eval_tasks, limit=40)
    for one in evaluate(model, config).scores:
        last = by_step[10][one.task]
        assert last["items"] == one.items
        assert last["acc"] == pytest.approx(one.acc.value, abs=1e-5)
        assert last["error"] == pytest.approx((one.acc_norm or one.acc).stderr, abs=1e-5)
        assert last.get("acc_norm") == (
            None if one.acc_norm is None else pytest.approx(one.acc_norm.value, abs=1e-5)
        )


@pytest.mark.ranks
def test_ranks_share_the_work_and_give_the_same_result(task_recipe, tmp_path):
    # 42 items with 4 answers are 21 batches of 8 texts: one rank has an empty batch
    small = with_train(
        task_recipe, steps=2, eval_every=0, eval_tasks_every=2, precision="bf16",
        eval_tasks_limit=42,
    )  # fmt: skip
    single = train(small, tmp_path / "single", build_task_evaluator=build_task_evaluator).run
    ranks = start_ranks(with_train(small, parallel="fsdp"), tmp_path / "several", 2)
    printed = wait_for_outputs(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(printed)
    found, expected = read_tasks(tmp_path / "several"), read_tasks(single)
    assert list(found) == list(expected)
    for step, tasks in expected.items():
        for task, metrics in tasks.items():
            for name, value in metrics.items():
                # rounding may change one item of 42
                assert found[step][task][name] == pytest.approx(value, abs=1.01 / 42)


def test_evaluation_interrupted_by_a_stop_runs_after_resuming(task_recipe, tmp_path):
    complete = train(
        task_recipe, tmp_path / "complete", build_task_evaluator=build_task_evaluator
    ).run

    def build_stopping(recipe, tokenizer, world):
        evaluate_tasks = build_task_evaluator(recipe, tokenizer, world)

        def stop_first(model, world, should_stop):
            signal.raise_signal(signal.SIGTERM)
            return evaluate_tasks(model, world, should_stop)

        return stop_first

    run = tmp_path / "run"
    stopped = train(task_recipe, run, build_task_evaluator=build_stopping)
    assert stopped.stopped_by == signal.SIGTERM and stopped.step == 4
    assert read_tasks(run) == {}
    resumed = train(task_recipe, run, build_task_evaluator=build_task_evaluator)
    assert resumed.is_finished and read_tasks(run) == read_tasks(complete)
    losses = [[row["loss"] for row in read_rows(one) if "loss" in row] for one in (complete, run)]
    assert losses[0] == losses[1]


def test_tasks_can_be_added_when_resuming(task_recipe, tmp_path):
    plain = with_train(task_recipe, eval_tasks=(), eval_tasks_every=0, eval_tasks_limit=500)

    def stop_at_5(row):
        if row["step"] == 5:
            signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    train(plain, run, stop_at_5)
    assert train(task_recipe, run, build_task_evaluator=build_task_evaluator).is_finished
    assert list(read_tasks(run)) == [8, 10]


def test_missing_file_or_evaluator_is_an_error_before_the_first_step(task_recipe, tmp_path):
    missing = with_train(task_recipe, eval_tasks=("mine=nowhere.jsonl",))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl"):
        train(missing, tmp_path / "run", build_task_evaluator=build_task_evaluator)
    with pytest.raises(ValueError, match=r"needs train.*build_task_evaluator"):
        train(task_recipe, tmp_path / "run")
