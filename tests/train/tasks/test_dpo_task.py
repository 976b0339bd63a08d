"""Preference tuning: from the base's view, to what people prefer, and to be trusted."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.processes import fingerprint
from tests.small_models import with_train
from transformers import AutoModelForCausalLM

from gnano.config.recipe import Recipe
from gnano.data.sft.chat_template import PreferencePair, encode_preference, read_template
from gnano.data.sft.record_loading import load_preferences
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.trainer import RunResult, train
from gnano.utils.jsonl_log import read_metrics


@pytest.fixture(scope="module")
def preferred(preferring: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train(preferring, tmp_path_factory.mktemp("dpo") / "run")


def measured(run: Path) -> list[dict[str, Any]]:
    return [row["heldout"] for row in read_metrics(run / "metrics.jsonl") if "heldout" in row]


def log_prob(model: torch.nn.Module, ids: Any, learned: Any) -> float:
    """Of the answer, by transformers, one text at a time."""
    row = torch.from_numpy(ids.astype("int64"))[None]
    with torch.no_grad():
        logs = model(row).logits[0, :-1].float().log_softmax(-1)
    taken = logs.gather(1, row[0, 1:, None])[:, 0]
    return float(taken[torch.from_numpy(learned[1:])].sum())


def test_the_reference_is_what_transformers_says_of_the_base(
    preferring: Recipe, preferred: RunResult, base: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    template = read_template(preferred.checkpoint)
    assert template is not None
    gathered, tokenizer = load_preferences(preferring.tuning_data), Tokenizer.load(base)
    groups = [*gathered.train.values(), *gathered.heldout.values()]
    pairs: list[PreferencePair] = [
        encode_preference(p, template, tokenizer) for group in groups for p in group
    ]
    expected = [
        log_prob(model, pair.chosen.ids, pair.chosen.loss_mask)
        - log_prob(model, pair.rejected.ids, pair.rejected.loss_mask)
        for pair in pairs
    ]
    found = load_file(preferred.run / "reference.safetensors")["margins"]
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-4, rtol=1e-4)


def test_it_begins_at_log_two_and_comes_to_prefer_what_people_do(preferred: RunResult) -> None:
    found = measured(preferred.run)
    assert found[0]["loss"] == pytest.approx(0.69315, abs=1e-4), "it differs from its base"
    assert found[0]["margin"] == pytest.approx(0.0, abs=1e-4)
    assert found[-1]["loss"] < 0.5 and found[-1]["accuracy"] > 0.9 and found[-1]["margin"] > 0.5
    first = next(row for row in read_metrics(preferred.run / "metrics.jsonl") if row["step"] == 1)
    assert first["loss"] == pytest.approx(0.693, abs=0.05)


def test_stopped_and_gone_on_with_it_is_the_same_to_the_last_bit(
    preferring: Recipe, preferred: RunResult, tmp_path: Path
) -> None:
    def stop(row: dict[str, object]) -> None:
        if row["step"] == 5:
            signal.raise_signal(signal.SIGTERM)

    assert train(preferring, tmp_path / "run", stop).step == 5
    result = train(preferring, tmp_path / "run")
    assert fingerprint(result.checkpoint) == fingerprint(preferred.checkpoint)


def test_a_reference_of_other_pairs_is_not_taken_for_theirs(
    preferring: Recipe, preferred: RunResult, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "reference.safetensors").write_bytes(b"torn")
    again = train(preferring, run)
    assert fingerprint(again.checkpoint) == fingerprint(preferred.checkpoint)
    other = with_train(preferring, dpo_beta=0.1)
    assert train(other, tmp_path / "other").is_finished  # another β has the same reference
    ours = load_file(run / "reference.safetensors")["margins"]
    theirs = load_file(tmp_path / "other" / "reference.safetensors")["margins"]
    assert torch.equal(ours, theirs)
