"""lm-evaluation-harness gives the same scores for the same checkpoint and items."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evals.conftest import REAL_ITEMS, made_items

from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.evals.harness import evaluate_with_lm_eval
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import evaluate

tasks = pytest.importorskip("lm_eval.tasks")
FP32 = LoadConfig(dtype="fp32", device="cpu")
BF16 = LoadConfig(dtype="bf16", device="cpu")


def check_agreement(folder, names, config, loading=FP32):
    """Check that both scores of each task agree up to an item of almost equal answers.

    In bf16 there are more of those: the harness rounds each token's log-probability to bf16 too.
    """
    max_items, tolerance = (1, 1e-3) if loading == FP32 else (3, 0.02)
    model = load_eval_model(folder, loading, config.add_bos)
    own = {one.task: one for one in evaluate(model, config).scores}
    result = evaluate_with_lm_eval(folder, names, config, loading)
    assert {one.task for one in result.scores} == set(names) == set(own)
    for one in result.scores:
        mine, error = own[one.task], (max_items + 0.01) / one.items
        assert (one.items, one.shots) == (mine.items, mine.shots)
        assert one.acc.value == pytest.approx(mine.acc.value, abs=error)
        assert one.acc.stderr == pytest.approx(mine.acc.stderr, abs=error / 4)
        assert (one.acc_norm is None) == (mine.acc_norm is None)
        if one.acc_norm and mine.acc_norm:
            assert one.acc_norm.value == pytest.approx(mine.acc_norm.value, abs=error)
        if one.perplexity is not None:
            assert one.perplexity == pytest.approx(mine.perplexity, rel=tolerance)
    return result


@pytest.fixture
def item_files(tmp_path):
    """Questions with four answers, a sentence with two beginnings, a last word."""
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
        # not the first task's texts: for two requests with the same ids that are scored from
        # different positions, the harness uses one position for both (0.4.13)
        "lambada": [{"text": f"Say it. {i.solved_text}"} for i in items],
    }
    for name, records in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return tuple(f"{name}={tmp_path / name}.jsonl" for name in rows)


@pytest.mark.slow
@pytest.mark.parametrize(("add_bos", "loading"), [("auto", BF16), ("no", FP32)])
def test_items_of_every_form(saved_model, item_files, add_bos, loading):
    config = EvalConfig(files=item_files, batch_size=16, add_bos=add_bos)
    check_agreement(saved_model, ["mine", "winogrande", "lambada"], config, loading)


@pytest.mark.slow
def test_few_shot_examples(saved_model, item_files):
    check_agreement(saved_model, ["mine"], EvalConfig(files=item_files[:1], limit=30, shots=1))


@pytest.mark.slow
def test_real_items(saved_model):
    if not REAL_ITEMS.is_dir():
        pytest.skip(f"the real items are not at {REAL_ITEMS}")
    names = {"hellaswag": "hellaswag_val", "arc_easy": "arc_easy", "lambada": "lambada_openai"}
    files = tuple(str(REAL_ITEMS / f"{name}.jsonl") for name in names.values())
    config = EvalConfig(files=files, limit=25, batch_size=16)
    result = check_agreement(saved_model, list(names), config)
    assert all(one.items == 25 for one in result.scores)
    assert result.name.startswith("random by lm-evaluation-harness ")


def test_unknown_task_is_an_error(saved_model, monkeypatch):
    folder = str(Path(tasks.__file__).parent / "hellaswag")  # loading all tasks is slow
    known = tasks.TaskManager(include_defaults=False, include_path=folder)
    monkeypatch.setattr(tasks, "TaskManager", lambda **_: known)
    with pytest.raises(ValueError, match="has no task 'hellaswug'"):
        evaluate_with_lm_eval(saved_model, ["hellaswug"], EvalConfig(), FP32)
