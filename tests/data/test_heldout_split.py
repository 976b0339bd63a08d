"""The held-out split: a hash of the text decides, and an empty split is reported."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, sets
from hypothesis.strategies import text as any_text

from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe
from gnano.data.manifest import format_empty_heldout, is_heldout
from gnano.data.prepare.pipeline import prepare
from gnano.data.readers import Document
from gnano.data.sft.record_loading import load_conversations
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import evaluate
from gnano.reporting.description import describe_data
from gnano.train.distributed.context import DistContext
from gnano.train.trainer import ignore_message
from gnano.train.training_task import PretrainingTask

text = any_text(max_size=20)
fractions = floats(0, 1, exclude_max=True)


@settings(deadline=None, max_examples=40)
@given(one=text, two=text, group=any_text(min_size=1, max_size=20), fraction=fractions)
def test_a_group_stays_together(one, two, group, fraction):
    assert is_heldout(Document(one, group), fraction) == is_heldout(Document(two, group), fraction)


@settings(deadline=None, max_examples=40)
@given(text=text, fraction=fractions, more=fractions)
def test_a_larger_fraction_only_adds_documents(text, fraction, more):
    if is_heldout(Document(text), min(fraction, more)):
        assert is_heldout(Document(text), max(fraction, more))


@settings(deadline=None, max_examples=40)
@given(text=text)
def test_a_fraction_of_0_holds_nothing_out(text):
    assert not is_heldout(Document(text), 0)


@pytest.mark.parametrize("fraction", [0.005, 0.1, 0.5, 0.9])
def test_the_fraction_is_kept_over_many_documents(fraction):
    count = 20_000
    held = sum(is_heldout(Document(f"document {n}"), fraction) for n in range(count))
    assert abs(held - count * fraction) < 5 * (count * fraction * (1 - fraction)) ** 0.5


def test_a_document_is_in_the_same_split_in_every_version():
    # the held-out documents of a run of weeks must not become training text after an update
    held = [n for n in range(40) if is_heldout(Document(f"document {n}"), 0.2)]
    assert held == [2, 10, 13, 14, 17, 36, 37]


def suggested_fraction(warning):
    assert warning.count("Nothing of ") == 1
    (fraction,) = re.findall(r"data\.heldout_fraction (\S+) holds out", warning)
    return float(fraction)


@given(positions=sets(integers(0, 2**63), min_size=2, max_size=400))
def test_the_suggested_fraction_holds_out_only_a_few(positions):
    fraction = suggested_fraction(format_empty_heldout("it", 1e-9, positions))
    held = sum(position < fraction * 2**64 for position in positions)
    # rounding up to two digits may hold out more than the ten
    assert held >= 1 and fraction <= 1.1 * (sorted(positions)[:10][-1] + 1) / 2**64


@pytest.mark.parametrize("positions", [[], [5], [5, 5]])
def test_a_single_text_cannot_be_held_out(positions):
    assert format_empty_heldout("it", 0.1, positions).endswith("it needs more texts.")


@pytest.mark.slow
def test_an_empty_heldout_split_is_reported_with_a_suggested_fraction(base, tmp_path, monkeypatch):
    monkeypatch.setattr("gnano.utils.hf_errors.sleep", lambda seconds: None)  # no Hub here
    texts = [f"{n} " + "the river and the stone " * 5 for n in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    config = DataConfig(
        folder=str(tmp_path / "data"),
        tokenizer=str(base),
        heldout_fraction=1e-6,
        workers=1,
        sources={"a": SourceConfig(files=(str(tmp_path / "a.jsonl"),))},
    )
    manifest = prepare(config)
    assert manifest.sources["a"].documents > 2 and not manifest.sources["a"].heldout_tokens
    evaluated: list[str] = []
    eval_config = EvalConfig(tasks=(), data=Path(config.folder))
    evaluate(load_eval_model(base, LoadConfig(dtype="fp32")), eval_config, on_note=evaluated.append)
    recipe = Recipe(model=ModelConfig(block_size=32), data=config)
    task, world = PretrainingTask(config, None), DistContext(torch.device("cpu"))
    reports = {
        "prepare, info": describe_data(Path(config.folder)),
        "pretrain": "\n".join(task.load(recipe, tmp_path, world, ignore_message)),
        "eval": "\n".join(evaluated),
    }
    fractions = {command: suggested_fraction(text) for command, text in reports.items()}
    fraction = fractions["pretrain"]
    assert fractions == dict.fromkeys(reports, fraction)
    better = prepare(replace(config, heldout_fraction=fraction, folder=str(tmp_path / "better")))
    assert better.sources["a"].heldout_tokens and better.sources["a"].tokens
    assert "Nothing of" not in describe_data(tmp_path / "better")


def test_fine_tuning_reports_an_empty_heldout_split(tmp_path):
    records = [{"instruction": f"What is {n}?", "output": str(n)} for n in range(20)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    sources = {"mine": InstructionSource(files=(str(tmp_path / "q.jsonl"),))}
    found = load_conversations(InstructionConfig(heldout_fraction=1e-6, sources=sources))
    fraction = suggested_fraction("\n".join(found.warnings))
    found = load_conversations(InstructionConfig(heldout_fraction=fraction, sources=sources))
    assert found.heldout and found.train["mine"] and not found.warnings
    assert not load_conversations(InstructionConfig(heldout_fraction=0, sources=sources)).warnings
