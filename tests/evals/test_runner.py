"""A score can be believed: chance for one who knows nothing, high for one who knows the answers."""

import json
import math

import pytest
from tests.evals.conftest import learned, made_items, small_model
from tests.small_models import with_train

from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.evals.eval_tasks import TaskItems
from gnano.evals.loglikelihood import GPTScorer, compute_loglikelihoods
from gnano.evals.model_adapter import RequestEncoder, load_eval_model
from gnano.evals.runner import EvalResult, evaluate, score_task
from gnano.tokenizer.train_bpe import train_bpe
from gnano.train.trainer import train


def scored(model, tokenizer, task, items, rows=32):
    wording = RequestEncoder.for_gpt(tokenizer, model.config.block_size)
    found = compute_loglikelihoods(GPTScorer(model.eval()), wording.encode_items(items), rows)
    return score_task(TaskItems(task, tuple(items)), found)


@pytest.mark.parametrize("seed", range(3))
def test_a_random_model_scores_at_chance(words, seed):
    found = scored(small_model(words.vocab_size, seed=seed), words, "mine", made_items())
    for accuracy in (found.acc, found.acc_norm):
        assert abs(accuracy.value - found.chance) < 4 * math.sqrt(0.25 * 0.75 / 200)


def test_a_model_trained_on_the_answers_scores_high_and_on_others_at_chance(words):
    items = made_items()
    model = learned(small_model(words.vocab_size), words, items[:40], 300)
    known = scored(model, words, "mine", items[:40])
    others = scored(model, words, "mine", items[40:])
    assert known.acc.value > 0.9 and known.acc_norm.value > 0.9
    assert abs(others.acc.value - 0.25) < 5 * others.acc.stderr


@pytest.mark.parametrize("name", ["arc_easy.jsonl", "lambada_openai.jsonl"])
def test_so_it_is_with_real_items(real_items, name):
    items = real_items(name, 12)
    # each text as often as any other: a tokenizer that knew the answers better would favour them
    tokenizer = train_bpe([text for i in items for text in (*i.contexts, *i.answers)] * 2, 600)
    random = small_model(tokenizer.vocab_size, 192)
    task = name.split("_")[0] if "arc" not in name else "arc_easy"
    before = scored(random, tokenizer, task, items)
    assert abs(before.acc.value - before.chance) < 4 * math.sqrt(0.25 * 0.75 / 12)
    after = scored(learned(random, tokenizer, items, 120), tokenizer, task, items)
    assert after.acc.value > 0.8
    assert after.acc_norm is None or after.acc_norm.value > 0.8


def test_the_batch_does_not_change_a_score(real_items, saved_model):
    items = real_items("hellaswag_val.jsonl", 40)
    subject = load_eval_model(saved_model, LoadConfig(dtype="fp32"))
    questions = subject.encoder.encode_items(items)
    one, *others = (compute_loglikelihoods(subject.scorer, questions, rows) for rows in (1, 5, 64))
    sheet = TaskItems("hellaswag", tuple(items))
    for other in others:
        assert score_task(sheet, other) == pytest.approx(score_task(sheet, one)) or other == one
        for a, b in zip(one, other, strict=True):
            assert [nats for nats, _ in a] == pytest.approx([nats for nats, _ in b], rel=1e-4)


@pytest.fixture
def run(recipe, tmp_path):
    """A checkpoint in a run whose data is prepared."""
    small = with_train(recipe, steps=3, eval_every=0, save_every=100)
    return train(small, tmp_path / "run").run


def items_file(tmp_path, count=30):
    path = tmp_path / "piqa.jsonl"
    rows = [
        {"query": item.contexts[0], "choices": list(item.answers), "gold": item.gold}
        for item in made_items(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_held_out_text_costs_what_the_run_itself_has_measured(run):
    found = evaluate(load_eval_model(run), EvalConfig(tasks=("none",)))
    (last,) = (
        row["heldout"]
        for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "heldout" in row
    )
    assert found.bits_per_byte == pytest.approx(last["bits_per_byte"], abs=2e-5)
    by_source = {part.source: part.bits_per_byte for part in found.bits}
    assert by_source == pytest.approx(last["sources"], abs=2e-5)
    assert found.tokens == 3 * 512


def test_an_evaluation_comes_back_from_json_as_it_was(run, tmp_path):
    asked = EvalConfig(files=(str(items_file(tmp_path)),), limit=10)
    found = evaluate(load_eval_model(run), asked)
    assert EvalResult.from_dict(json.loads(found.to_json())) == found
    table = found.format_table()
    assert "PIQA" in table and "held-out text" in table
    assert f"{found.scores[0].acc_norm}" in table


def test_of_all_tasks_those_that_cannot_be_had_are_left_out_and_named_ones_are_not(
    run, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("gnano.utils.hf_errors.sleep", lambda seconds: None)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    file = str(items_file(tmp_path))
    notes: list[str] = []
    asked = EvalConfig(tasks=("all",), files=(file,), cache_dir=tmp_path / "hub")
    found = evaluate(load_eval_model(run), asked, on_note=notes.append)
    assert [one.task for one in found.scores] == ["piqa"]
    assert set(found.skipped) > {"hellaswag", "boolq"} and len(notes) == len(found.skipped) == 7
    named = EvalConfig(tasks=("boolq",), cache_dir=tmp_path / "hub")
    with pytest.raises(OSError):
        evaluate(load_eval_model(run), named)


def test_a_saved_model_of_no_run_has_only_what_it_is_asked(saved_model, tmp_path):
    found = evaluate(load_eval_model(saved_model), EvalConfig(files=(str(items_file(tmp_path)),)))
    assert found.bits == () and found.tokens is None and len(found.scores) == 1
