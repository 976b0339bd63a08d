"""The smoke test generates twelve texts, grades them and reports the results."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.fakes.scripted_model import teach

from gnano.config.inference_config import SamplingParams
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.sft.chat_template import ALPACA, ChatTemplate, save_template
from gnano.evals.memorization import find_longest_copies
from gnano.evals.smoke_test import (
    PROMPTS,
    SmokeReport,
    SmokeSample,
    generate_samples,
    run_smoke_test,
)
from gnano.evals.text_checks import Grade, Verdict
from gnano.infer.engine import Completion, Engine
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT

GOOD = {
    "story": " who went out in his boat before the others woke. He loved the sea, and the fish "
    "seemed to know him.",
    "function": "\n    counts = {}\n    for word in text.split():\n"
    "        counts[word] = counts.get(word, 0) + 1\n    return counts\n",
    "question": " In autumn the green color goes out of the leaves, so that we see the yellow one.",
    "essay": " only a few people could own one. A printer made a thousand copies in the time in "
    "which a monk wrote one page.",
    "list": " a hat\n- water\n- a book\n- an umbrella\n- something to eat",
    "fact": " hydrogen and oxygen.",
}


def count_grades(
    engine: Engine, texts: dict[str, str], finished: bool, template: ChatTemplate | None = None
) -> dict[Grade, int]:
    """Return the numbers of grades if the engine writes these texts for the prompts."""

    def complete(prompts, *_, **__):
        assert len(prompts) == len(PROMPTS)
        return [
            [Completion(texts[prompt.name], (1, 2), "stop" if finished else "length")]
            for prompt in PROMPTS
        ]

    engine.generate_batch = complete  # type: ignore[method-assign]
    return SmokeReport(tuple(generate_samples(engine, template, SamplingParams(), 60))).counts


def test_good_texts_are_ok(engine):
    for finished in (True, False):
        assert count_grades(engine, GOOD, finished) == {"OK": 6, "WEAK": 0, "FAIL": 0}


def test_good_answers_are_ok_if_they_end(engine):
    code = f"Here it is:\n\n```python\ndef count_words(text):{GOOD['function']}```\n"
    answers = {**GOOD, "function": code, "list": "1. a hat\n2. water\n3. a good book"}
    assert count_grades(engine, answers, True, ALPACA)["OK"] == 6
    assert count_grades(engine, answers, False, ALPACA)["WEAK"] == 6


def test_texts_of_other_prompts_are_not_ok(engine):
    names = [prompt.name for prompt in PROMPTS]
    rotated = dict(zip(names, [GOOD[name] for name in names[3:] + names[:3]], strict=True))
    assert count_grades(engine, rotated, False)["OK"] == 0


@pytest.mark.slow
def test_random_weights_fail_everywhere(make_engine, save_engine):
    found = run_smoke_test(save_engine(make_engine(block_size=512)), max_tokens=60)
    assert found.counts == {"OK": 0, "WEAK": 0, "FAIL": 12}


@pytest.mark.slow
def test_sample_equals_the_text_generated_for_its_prompt(make_engine, save_engine):
    engine = make_engine(block_size=512)
    folder = save_engine(engine)
    found = run_smoke_test(folder, temperatures=(0.5, 1.5), max_tokens=20, seed=3)
    for sample in found.samples[::4]:
        sampling = SamplingParams(temperature=sample.temperature, seed=3)
        assert sample.text == engine.generate(sample.prompt, 20, sampling)
    assert [sample.temperature for sample in found.samples] == [0.5, 1.5] * 6
    other = run_smoke_test(folder, temperatures=(0.5, 1.5), max_tokens=20, seed=4)
    assert [a.text for a in other.samples] != [b.text for b in found.samples]


@pytest.mark.slow
def test_tuned_model_gets_its_own_template(make_engine, save_engine):
    engine = make_engine(block_size=512)
    teach(engine.model, engine.tokenizer, "it read one word")
    folder = save_engine(engine)
    with pytest.raises(ValueError, match="has no readable template"):
        run_smoke_test(folder, "own")
    # the scripted model writes only after a line break, with which each template begins an answer
    own = ChatTemplate(user="it read one w{content}\n")
    save_template(own, folder)
    found = run_smoke_test(folder, "own", temperatures=(0,), max_tokens=40)
    assert {sample.text for sample in found.samples} == {"it read one word"}
    assert all(sample.finished and sample.tokens < 40 for sample in found.samples)
    for sample in found.samples:
        assert "template: it contains 'it read one w'" in sample.verdict.reasons
    assert found.counts["FAIL"] == 6 and not found.note
    alpaca = run_smoke_test(folder, "alpaca", temperatures=(0,), max_tokens=40)
    assert "--format own" in alpaca.note
    assert not any("template" in str(sample.verdict.reasons) for sample in alpaca.samples)


@pytest.mark.slow
def test_prompts_are_truncated_to_half_of_a_small_context(make_engine, save_engine):
    found = run_smoke_test(save_engine(make_engine(block_size=40)), temperatures=(1.0,))
    assert all(0 < sample.tokens <= 40 for sample in found.samples)
    assert sum(sample.tokens >= 20 for sample in found.samples) >= 5


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_tokens": 3}, "tokens is 3; it must be at least 16"),
        ({"temperatures": ()}, "There is no temperature"),
        ({"temperatures": (-1.0,)}, "temperature is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"format": "vicuna"}, "There is no format 'vicuna': use text, own, alpaca"),
    ],
)
def test_invalid_settings_are_errors_before_anything_is_generated(
    settings, reason, make_engine, save_engine
):
    shown: list[str] = []
    with pytest.raises(ValueError, match=reason):
        run_smoke_test(save_engine(make_engine()), on_progress=shown.append, **settings)
    assert not shown


@pytest.mark.slow
def test_progress_counts_samples(make_engine, save_engine):
    shown: list[str] = []
    run_smoke_test(
        save_engine(make_engine(block_size=128)), max_tokens=16, on_progress=shown.append
    )
    counted = [int(text.split()[0]) for text in shown]
    assert counted == sorted(counted) and shown[-1] == "12 of 12 samples"


def make_sample(name: str, text: str, verdict: Verdict) -> SmokeSample:
    return SmokeSample(name, 0.7, "Once", text, 3, False, verdict)


REPORT = SmokeReport(
    (
        make_sample("story", " upon a time", Verdict("OK", ("3 words, 0% repeated",))),
        make_sample(
            "fact", "\x1b[2J\ufffd", Verdict("FAIL", ("garbled: all of it", "topic: 0 of 1"))
        ),
        make_sample("list", " more", Verdict("WEAK", ("topic: 0 of 1 word",))),
    )
)


def test_table_has_grade_and_reason_of_each_sample_and_the_totals():
    _, story, fact, _, _, total = REPORT.format_table().splitlines()
    assert story.split(maxsplit=3) == ["story", "0.7", "OK", "3 words, 0% repeated"]
    assert "FAIL" in fact and "garbled: all of it (and 1 more)" in fact
    assert total == "1 OK · 1 WEAK · 1 FAIL"


def test_control_characters_are_escaped():
    text = REPORT.format_texts()
    assert "Once upon a time" in text and "topic: 0 of 1" in text
    assert "\x1b" not in text and r"\x1b[2J" in text


def test_json_contains_the_texts_unchanged():
    stored = json.loads(json.dumps(REPORT.to_dict()))
    assert (stored["ok"], stored["weak"], stored["fail"]) == (1, 1, 1)
    assert stored["samples"][1]["text"] == "\x1b[2J\ufffd"
    assert stored["samples"][1]["grade"] == "FAIL" and len(stored["samples"][1]["reasons"]) == 2


@pytest.mark.slow
def test_spans_copied_from_the_training_shards_are_reported(recipe, tmp_path):
    corpus = TokenizedCorpus(Path(recipe.pretraining_data.folder))
    ids = corpus.shard_tokens(0, 0)
    text = corpus.tokenizer.decode(ids[1:40].tolist())
    spans = find_longest_copies(corpus, [text, "nothing of it"])
    assert spans[0] is not None and spans[0].tokens > 30 and spans[1] is None
    torch.manual_seed(0)
    model = GPT.from_config(replace(recipe.model, block_size=256))
    corpus.tokenizer.save(tmp_path / "model")
    save_model(model, tmp_path / "model", corpus.tokenizer.end_of_text_id)
    found = run_smoke_test(tmp_path / "model", max_tokens=40, data=corpus.folder)
    expected = find_longest_copies(corpus, [sample.text for sample in found.samples])
    for sample, span in zip(found.samples, expected, strict=True):
        assert (sample.copied and sample.copied.text) == (span and span.text)
    copied = replace(found.samples[0], copied=spans[0])
    text = replace(found, samples=(copied,)).format_texts()
    assert f"{spans[0].tokens} tokens in a row as in left" in text
