"""Scores are at chance for random models, high for trained ones, and equal a count by hand."""

import json
import math
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path

import huggingface_hub.constants
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import write_corpus
from tests.evals.conftest import NUM_KNOWN, made_items, small_model, write_items
from tests.small_models import with_train

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.evals import runner
from gnano.evals.eval_tasks import EvalItem, TaskItems
from gnano.evals.loglikelihood import GPTScorer, compute_loglikelihoods
from gnano.evals.model_adapter import RequestEncoder, load_eval_model
from gnano.evals.result_store import Accuracy, ModelResult, TaskScore
from gnano.evals.runner import evaluate, is_correct, score_task, score_with_contamination
from gnano.train.trainer import train

CHOICE = EvalItem(("q",), ("a", "bbbb"), 1)


@pytest.mark.parametrize(
    ("item", "choice_scores", "expected"),
    [
        (CHOICE, [(-1.0, False), (-2.0, False)], (False, True)),  # 0.5 per character against 1
        (CHOICE, [(-2.0, False), (-1.0, False)], (True, True)),
        (CHOICE, [(-1.0, True), (-8.0, True)], (False, False)),
        (CHOICE, [(-1.0, False), (-1.0, False)], (False, True)),  # the first of equals
        (EvalItem(("q",), ("word",), 0), [(-9.0, True)], (True, True)),
        (EvalItem(("q",), ("word",), 0), [(-0.1, False)], (False, False)),
        (EvalItem(("x", "y"), ("rest",), 1), [(-3.0, False), (-2.0, False)], (True, True)),
    ],
)
def test_correct_by_likelihood_and_per_character(item, choice_scores, expected):
    assert is_correct(item, choice_scores) == expected


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_error_is_the_standard_error_of_a_mean(outcomes):
    accuracy = Accuracy.from_counts(sum(outcomes), len(outcomes))
    assert accuracy.value == pytest.approx(statistics.mean(outcomes))
    deviation = statistics.stdev(map(float, outcomes)) / math.sqrt(len(outcomes))
    assert accuracy.stderr == pytest.approx(deviation, abs=1e-12)


def test_task_with_one_answer_has_perplexity_and_no_chance():
    task = TaskItems("lambada", (EvalItem(("q",), ("word",), 0),) * 2)
    score = score_task(task, [[(-math.log(4), True)], [(-math.log(9), False)]])
    assert score.perplexity == pytest.approx(6) and score.chance == 0
    assert score.acc.value == 0.5 and score.acc_norm is None


def test_chance_follows_from_the_number_of_answers():
    items = (EvalItem(("q",), ("a", "b"), 0), EvalItem(("q",), ("a", "b", "c", "d"), 0))
    score = score_task(TaskItems("mine", items), [[(-1.0, False)] * 2, [(-1.0, False)] * 4])
    assert score.chance == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_score_survives_json():
    task = TaskItems("winogrande", (EvalItem(("x", "y"), ("rest",), 1),), shots=2)
    score = score_task(task, [[(-3.0, False), (-2.0, False)]])
    assert TaskScore.from_dict(json.loads(json.dumps(asdict(score)))) == score
    assert score.acc_norm is None  # all its answers are equal


def score_model(model, tokenizer, items):
    encoder = RequestEncoder.for_gpt(tokenizer, model.config.block_size)
    scores = compute_loglikelihoods(GPTScorer(model.eval()), encoder.encode_items(items), 32)
    return score_task(TaskItems("mine", tuple(items)), scores)


@pytest.mark.parametrize("seed", range(2))
def test_random_model_scores_at_chance(words, seed):
    score = score_model(small_model(words.vocab_size, seed=seed), words, made_items())
    for accuracy in (score.acc, score.acc_norm):
        assert abs(accuracy.value - score.chance) < 4 * math.sqrt(0.25 * 0.75 / 200)


def test_trained_model_scores_high_on_its_items_and_at_chance_on_others(trained_model, words):
    items = made_items()
    known = score_model(trained_model, words, items[:NUM_KNOWN])
    others = score_model(trained_model, words, items[NUM_KNOWN:])
    assert known.acc.value > 0.9 and known.acc_norm.value > 0.9
    assert abs(others.acc.value - 0.25) < 5 * others.acc.stderr


@pytest.mark.slow
def test_batch_size_does_not_change_a_score(real_items, saved_model):
    items = real_items("hellaswag_val.jsonl", 12)
    model = load_eval_model(saved_model, LoadConfig(dtype="fp32"))
    encoded = model.encoder.encode_items(items)
    one, *others = (compute_loglikelihoods(model.scorer, encoded, size) for size in (1, 5, 64))
    task = TaskItems("hellaswag", tuple(items))
    for other in others:
        assert score_task(task, other) == score_task(task, one)
        for a, b in zip(one, other, strict=True):
            assert [nats for nats, _ in a] == pytest.approx([nats for nats, _ in b], rel=1e-4)


@pytest.fixture(scope="module")
def finished_run(recipe, tmp_path_factory) -> Path:
    small = with_train(recipe, steps=3, eval_every=0, save_every=100)
    return train(small, tmp_path_factory.mktemp("runs") / "run").run


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def piqa(tmp_path) -> str:
    return str(write_items(tmp_path / "piqa.jsonl", made_items(30)))


def test_heldout_bits_per_byte_equal_those_measured_in_training(run):
    result = evaluate(load_eval_model(run), EvalConfig(tasks=("none",)))
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    (last,) = (row["heldout"] for row in rows if "heldout" in row)
    assert result.bits_per_byte == pytest.approx(last["bits_per_byte"], abs=2e-5)
    by_source = {part.source: part.bits_per_byte for part in result.bits}
    assert by_source == pytest.approx(last["sources"], abs=2e-5)
    assert result.tokens == 3 * 512


def test_result_survives_json_and_its_table_has_all_scores(run, piqa):
    result = evaluate(load_eval_model(run), EvalConfig(files=(piqa,), limit=10))
    assert ModelResult.from_dict(json.loads(result.to_json())) == result
    table = result.format_table()
    assert "PIQA" in table and "held-out text" in table
    assert f"{result.scores[0].acc_norm}" in table


def test_unreachable_tasks_are_skipped_unless_named(run, piqa, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("gnano.utils.hf_errors.sleep", lambda seconds: None)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    notes: list[str] = []
    config = EvalConfig(tasks=("all",), files=(piqa,), cache_dir=tmp_path / "hub")
    result = evaluate(load_eval_model(run), config, on_note=notes.append)
    assert [one.task for one in result.scores] == ["piqa"]
    assert set(result.skipped) > {"hellaswag", "boolq"}
    assert len(notes) == len(result.skipped) == 7
    named = EvalConfig(tasks=("boolq",), cache_dir=tmp_path / "hub")
    with pytest.raises(OSError):
        evaluate(load_eval_model(run), named)


def test_model_without_a_run_has_no_bits_and_no_tokens(saved_model, piqa):
    result = evaluate(load_eval_model(saved_model), EvalConfig(files=(piqa,), limit=5))
    assert result.bits == () and result.tokens is None and len(result.scores) == 1


def test_contaminated_items_are_counted_and_left_out_of_the_clean_score(tmp_path, monkeypatch):
    items, known = made_items(20), {0, 7, 11}
    write_corpus(tmp_path / "corpus", 40)
    for number in known:
        file = tmp_path / f"corpus/left/item{number}.txt"
        file.write_text(f"It was written: {items[number].solved_text}, and then nothing.")
    config = DataConfig(
        folder=str(tmp_path / "data"),
        tokenizer="bpe-300",
        heldout_fraction=0.0,
        sources={"left": SourceConfig(weight=1.0, files=(str(tmp_path / "corpus/left"),))},
    )
    prepare(config)
    # the contaminated items are right, all others wrong
    choice_scores = [
        [(-1.0 if (at == item.gold) == (number in known) else -9.0, False) for at in range(4)]
        for number, item in enumerate(items)
    ]
    short = TaskItems("short", (EvalItem(("too",), ("short", "for"), 0),))
    tasks = [
        (short, [[(-1.0, False), (-2.0, False)]]),
        (TaskItems("mine", (*items,)), choice_scores),
    ]
    too_short, score = score_with_contamination(tasks, TokenizedCorpus(tmp_path / "data"))
    assert too_short.contamination == {"checked": 0, "found": 0, "examples": [], "clean": None}
    assert score.contamination is not None and score.contamination["found"] == 3
    assert score.contamination["checked"] == 20
    assert {example["item"] for example in score.contamination["examples"]} == known
    assert score.acc.value == pytest.approx(3 / 20)
    clean = TaskScore.from_dict(score.contamination["clean"])
    assert (clean.items, clean.acc.value) == (17, 0)
    line = score.format_contamination()
    assert "3 of its 20 items" in line and "0.000" in line
    monkeypatch.setattr(runner, "MAX_EXAMPLES", 2)
    _, score = score_with_contamination(tasks, TokenizedCorpus(tmp_path / "data"))
    assert score.contamination is not None
    assert [example["item"] for example in score.contamination["examples"]] == [0, 7]
