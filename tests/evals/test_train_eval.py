"""Tasks asked on the way are in the run's log, the same for any number of ranks."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.evals.conftest import made_items
from tests.processes import ends, start_ranks
from tests.small_models import with_train

from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.config.recipe import Recipe
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import evaluate
from gnano.evals.train_eval import build_task_evaluator
from gnano.train.trainer import train


def items_file(folder: Path) -> Path:
    """Items short enough for a context of 32 tokens, and one answer each of a second task."""
    path = folder / "mine.jsonl"
    rows = [
        {"query": f"number {n}", "choices": [a.split(" in ")[0] for a in i.answers], "gold": i.gold}
        for n, i in enumerate(made_items(50))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    last = [{"context": f"the {n} river", "continuation": "stone"} for n in range(9)]
    (folder / "lambada.jsonl").write_text("\n".join(map(json.dumps, last)))
    return path


@pytest.fixture
def examined(recipe: Recipe, tmp_path: Path) -> Recipe:
    """Asked every 4 steps of 10, 40 items; held-out text after other steps."""
    file = items_file(tmp_path)
    model = replace(recipe.model, dropout=0.0)
    return with_train(
        replace(recipe, model=model),
        steps=10,
        micro_batch_size=2,
        eval_every=6,
        save_every=100,
        eval_tasks=(f"mine={file}", str(file.with_name("lambada.jsonl"))),
        eval_tasks_every=4,
        eval_tasks_limit=40,
    )


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def asked(run: Path) -> dict[int, dict[str, Any]]:
    return {row["step"]: row["tasks"] for row in rows(run) if "tasks" in row}


def test_tasks_are_asked_when_they_are_due_and_as_gnano_eval_asks_them(examined, tmp_path):
    run = train(examined, tmp_path / "run", build_task_evaluator=build_task_evaluator).run
    found = asked(run)
    assert list(found) == [4, 8, 10]
    assert [row["step"] for row in rows(run) if "heldout" in row] == [6, 10]
    subject = load_eval_model(run, LoadConfig(dtype="fp32"))
    ours = evaluate(subject, EvalConfig(files=examined.train.tasks, limit=40))
    for one in ours.scores:
        last = found[10][one.task]
        assert last["items"] == one.items
        assert last["acc"] == pytest.approx(one.acc.value, abs=1e-5)
        assert last["error"] == pytest.approx(one.primary.stderr, abs=1e-5)
        assert last.get("acc_norm") == (
            None if one.acc_norm is None else pytest.approx(one.acc_norm.value, abs=1e-5)
        )


def test_ranks_share_the_work_and_find_what_one_finds(examined, tmp_path):
    # 42 items of 4 answers are 21 batches of 8 texts: one rank has an empty one
    examined = with_train(examined, steps=4, precision="bf16", eval_tasks_limit=42)
    alone = train(examined, tmp_path / "alone", build_task_evaluator=build_task_evaluator).run
    ranks = start_ranks(with_train(examined, parallel="fsdp"), tmp_path / "several", 2)
    printed = ends(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(printed)
    found, expected = asked(tmp_path / "several"), asked(alone)
    assert list(found) == list(expected)
    for step, tasks in expected.items():
        for task, figures in tasks.items():
            for name, value in figures.items():
                # an item in 42 may fall to the other side by rounding
                assert found[step][task][name] == pytest.approx(value, abs=1.01 / 42)


def test_a_run_stopped_while_it_is_asked_makes_up_for_it(examined, tmp_path):
    whole = train(examined, tmp_path / "whole", build_task_evaluator=build_task_evaluator).run

    def stopping(recipe, tokenizer, world):
        ask = build_task_evaluator(recipe, tokenizer, world)

        def first_time(model, world, stop):
            signal.raise_signal(signal.SIGTERM)
            return ask(model, world, stop)

        return first_time

    stopped = train(examined, tmp_path / "run", build_task_evaluator=stopping)
    assert stopped.stopped_by == signal.SIGTERM and stopped.step == 4
    assert asked(tmp_path / "run") == {}
    again = train(examined, tmp_path / "run", build_task_evaluator=build_task_evaluator)
    assert again.is_finished and asked(tmp_path / "run") == asked(whole)
    assert [r["loss"] for r in rows(whole) if "loss" in r] == [
        r["loss"] for r in rows(tmp_path / "run") if "loss" in r
    ]


def test_tasks_can_be_added_to_a_run_that_goes_on(examined, tmp_path):
    plain = with_train(examined, eval_tasks=(), eval_tasks_every=0, eval_tasks_limit=500, steps=10)

    def watch(row):
        if row["step"] == 5:
            signal.raise_signal(signal.SIGTERM)

    train(plain, tmp_path / "run", watch)
    assert train(examined, tmp_path / "run", build_task_evaluator=build_task_evaluator).is_finished
    assert list(asked(tmp_path / "run")) == [8, 10]


def test_a_missing_file_is_told_before_the_first_step(examined, tmp_path):
    missing = with_train(examined, eval_tasks=("mine=nowhere.jsonl",))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl"):
        train(missing, tmp_path / "run", build_task_evaluator=build_task_evaluator)
    with pytest.raises(ValueError, match=r"exam=gnano\.evals\.open_exam"):
        train(examined, tmp_path / "run")
