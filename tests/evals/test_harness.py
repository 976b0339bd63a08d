"""lm-evaluation-harness, on the same checkpoint and the same items, finds the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evals.conftest import REAL, made_items

from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.evals.harness import evaluate_with_lm_eval
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import evaluate

tasks = pytest.importorskip("lm_eval.tasks")
FP32 = LoadConfig(dtype="fp32", device="cpu")


def agree(folder, files, names, limit, start="auto", loading=FP32):
    """Both scores of each task, which may differ by an item where two answers are all but equal.

    In bf16 more are: the harness rounds each token's log-probability to bf16 too.
    """
    items, near = (1, 1e-3) if loading == FP32 else (3, 0.02)
    asked = EvalConfig(files=files, limit=limit, batch_size=16, add_bos=start)
    ours = {
        one.task: one for one in evaluate(load_eval_model(folder, loading, start), asked).scores
    }
    theirs = evaluate_with_lm_eval(folder, names, asked, loading)
    assert {one.task for one in theirs.scores} == set(names) == set(ours)
    for one in theirs.scores:
        mine, item = ours[one.task], (items + 0.01) / one.items
        assert one.items == mine.items
        assert one.acc.value == pytest.approx(mine.acc.value, abs=item)
        assert one.acc.stderr == pytest.approx(mine.acc.stderr, abs=item / 4)
        assert (one.acc_norm is None) == (mine.acc_norm is None)
        if one.acc_norm and mine.acc_norm:
            assert one.acc_norm.value == pytest.approx(mine.acc_norm.value, abs=item)
        if one.perplexity is not None:
            assert one.perplexity == pytest.approx(mine.perplexity, rel=near)
    return theirs


@pytest.fixture
def own(tmp_path):
    """Questions of four answers, a sentence of two beginnings, a last word."""
    items = made_items(60)
    rows: dict[str, list[dict[str, Any]]] = {
        "mine": [
            {"query": i.contexts[0], "choices": list(i.answers), "gold": i.gold} for i in items
        ],
        "winogrande": [
            {
                "sentence": f"{i.contexts[0]} the _ one, not the other.",
                "option1": i.answers[0],
                "option2": i.answers[1],
                "answer": str(1 + i.gold % 2),
            }
            for i in items
        ],
        # not the first task's texts: of two requests of the same ids that the harness scores from
        # different places on, it takes one's place for both (0.4.13)
        "lambada": [{"text": f"Say it. {i.solved_text}"} for i in items],
    }
    for name, records in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tuple(f"{name}={tmp_path / name}.jsonl" for name in rows)


@pytest.mark.parametrize(("start", "dtype"), [("auto", "bf16"), ("no", "fp32")])
def test_on_items_of_every_form(saved_model, own, start, dtype):
    loading = LoadConfig(dtype=dtype, device="cpu")
    agree(saved_model, own, ["mine", "winogrande", "lambada"], 0, start, loading)


def test_with_examples(saved_model, own):
    asked = EvalConfig(files=own[:1], shots=1)
    (ours,) = evaluate(load_eval_model(saved_model, FP32), asked).scores
    (theirs,) = evaluate_with_lm_eval(saved_model, ["mine"], asked, FP32).scores
    assert theirs.acc.value == pytest.approx(ours.acc.value, abs=1.01 / 60)
    assert theirs.shots == ours.shots == 1


def test_on_a_few_hundred_real_items(saved_model):
    if not REAL.is_dir():
        pytest.skip(f"the real items are not at {REAL}")
    names = {"hellaswag": "hellaswag_val", "arc_easy": "arc_easy", "lambada": "lambada_openai"}
    files = tuple(str(REAL / f"{name}.jsonl") for name in names.values())
    found = agree(saved_model, files, list(names), 150)
    assert all(one.items == 150 for one in found.scores)
    assert found.name.startswith("random by lm-evaluation-harness ")


def test_a_task_that_it_does_not_know_is_a_sentence(saved_model, monkeypatch):
    folder = str(Path(tasks.__file__).parent / "hellaswag")  # to find all of its tasks takes long
    known = tasks.TaskManager(include_defaults=False, include_path=folder)
    monkeypatch.setattr(tasks, "TaskManager", lambda **_: known)
    with pytest.raises(ValueError, match="has no task 'hellaswug'"):
        evaluate_with_lm_eval(saved_model, ["hellaswug"], EvalConfig(), FP32)
