import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, sets
from hypothesis.strategies import text as any_text

from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.data.manifest import format_empty_heldout, is_heldout
from gnano.data.prepare.pipeline import prepare
from gnano.data.readers import Document
from gnano.data.sft.record_loading import load_conversations
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import evaluate
from gnano.reporting.description import describe_data
from gnano.train.tasks.pretraining import PretrainingTask

text = any_text(max_size=20)
shares = floats(0, 1, exclude_max=True)


@settings(deadline=None, max_examples=40)
@given(one=text, two=text, group=any_text(min_size=1, max_size=20), share=shares)
def test_a_group_stays_together(one, two, group, share):
    assert is_heldout(Document(one, group), share) == is_heldout(Document(two, group), share)


@settings(deadline=None, max_examples=40)
@given(text=text, share=shares, more=shares)
def test_a_larger_share_only_adds_documents(text, share, more):
    if is_heldout(Document(text), min(share, more)):
        assert is_heldout(Document(text), max(share, more))


@settings(deadline=None, max_examples=40)
@given(text=text)
def test_a_share_of_0_holds_nothing_out(text):
    assert not is_heldout(Document(text), 0)


@pytest.mark.parametrize("share", [0.005, 0.1, 0.5, 0.9])
def test_the_share_is_kept_over_many_documents(share):
    count = 20_000
    held = sum(is_heldout(Document(f"document {n}"), share) for n in range(count))
    assert abs(held - count * share) < 5 * (count * share * (1 - share)) ** 0.5


def test_a_document_is_on_the_same_side_in_every_version():
    # the held-out documents of a run of weeks must not become training text after an update
    held = [n for n in range(40) if is_heldout(Document(f"document {n}"), 0.2)]
    assert held == [2, 10, 13, 14, 17, 36, 37]


def named_share(note):
    assert note.count("Nothing of ") == 1
    (share,) = re.findall(r"data\.heldout (\S+) holds out", note)
    return float(share)


@given(positions=sets(integers(0, 2**63), min_size=2, max_size=400))
def test_the_share_that_is_named_holds_out_a_few_and_leaves_the_others(positions):
    share = named_share(format_empty_heldout("it", 1e-9, positions))
    held = sum(position < share * 2**64 for position in positions)
    # two digits of a share may take more than the ten that are meant
    assert held >= 1 and share <= 1.1 * (sorted(positions)[:10][-1] + 1) / 2**64


@pytest.mark.parametrize("positions", [[], [5], [5, 5]])
def test_of_one_text_nothing_can_be_held_out(positions):
    assert format_empty_heldout("it", 0.1, positions).endswith("it needs more texts.")


def test_where_nothing_is_held_out_every_command_says_so_and_what_would_do(base, tmp_path):
    """Of a text whose documents are few, and of few questions."""
    (tmp_path / "a.txt").write_text(
        "".join(f"{n} the river and the stone\n\n" * 900 for n in range(9))
    )
    config = DataConfig(
        folder=str(tmp_path / "data"),
        tokenizer=str(base),
        heldout_fraction=1e-6,
        sources={"a": SourceConfig(files=(str(tmp_path / "a.txt"),))},
    )
    manifest = prepare(config)
    assert manifest.sources["a"].documents > 2 and not manifest.sources["a"].heldout_tokens
    evaluated: list[str] = []
    asked = EvalConfig(tasks=(), data=Path(config.folder))
    evaluate(load_eval_model(base, LoadConfig(dtype="fp32")), asked, on_note=evaluated.append)
    said = {
        "prepare, info": describe_data(Path(config.folder)),
        "pretrain": "\n".join(PretrainingTask(config, 32, None).describe()),
        "eval": "\n".join(evaluated),
    }
    shares = {door: named_share(text) for door, text in said.items()}
    share = shares["pretrain"]
    assert shares == dict.fromkeys(said, share)
    better = prepare(replace(config, heldout_fraction=share, folder=str(tmp_path / "better")))
    assert better.sources["a"].heldout_tokens and better.sources["a"].tokens
    assert "Nothing of" not in describe_data(tmp_path / "better")


def test_where_no_question_is_held_out_tuning_says_so_and_what_would_do(tmp_path):
    records = [{"instruction": f"What is {n}?", "output": str(n)} for n in range(20)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    sources = {"mine": InstructionSource(files=(str(tmp_path / "q.jsonl"),))}
    found = load_conversations(InstructionConfig(heldout_fraction=1e-6, sources=sources))
    share = named_share("\n".join(found.warnings))
    found = load_conversations(InstructionConfig(heldout_fraction=share, sources=sources))
    assert found.heldout and found.train["mine"] and not found.warnings
    assert not load_conversations(InstructionConfig(heldout_fraction=0, sources=sources)).warnings
