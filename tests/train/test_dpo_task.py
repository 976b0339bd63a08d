"""Preference tuning (DPO): reference margins of the base, learning, and exact resume."""

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
from gnano.data.sft.chat_template import read_template
from gnano.data.sft.encoding import PreferencePair, encode_preference
from gnano.data.sft.record_loading import load_preferences
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.train.trainer import RunResult, train
from gnano.utils.jsonl_log import read_metrics


@pytest.fixture(scope="module")
def tuned(dpo_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return train(dpo_recipe, tmp_path_factory.mktemp("dpo") / "run")


def heldout_metrics(run: Path) -> list[dict[str, Any]]:
    return [row["heldout"] for row in read_metrics(run / "metrics.jsonl") if "heldout" in row]


def log_prob(model: torch.nn.Module, ids: Any, loss_mask: Any) -> float:
    """Return the log-probability of the answer, by transformers."""
    row = torch.from_numpy(ids.astype("int64"))[None]
    with torch.no_grad():
        logs = model(row).logits[0, :-1].float().log_softmax(-1)
    taken = logs.gather(1, row[0, 1:, None])[:, 0]
    return float(taken[torch.from_numpy(loss_mask[1:])].sum())


def test_reference_margins_match_transformers(
    dpo_recipe: Recipe, tuned: RunResult, base: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    template = read_template(tuned.checkpoint)
    assert template is not None
    records, tokenizer = load_preferences(dpo_recipe.tuning_data), load_tokenizer(base)
    groups = [*records.train.values(), *records.heldout.values()]
    pairs: list[PreferencePair] = [
        encode_preference(p, template, tokenizer) for group in groups for p in group
    ]
    expected = [
        log_prob(model, pair.chosen.ids, pair.chosen.loss_mask)
        - log_prob(model, pair.rejected.ids, pair.rejected.loss_mask)
        for pair in pairs
    ]
    found = load_file(tuned.run / "reference.safetensors")["margins"]
    torch.testing.assert_close(found, torch.tensor(expected), atol=2e-4, rtol=1e-4)


def test_loss_starts_at_log_two_and_learns_preferences(tuned: RunResult) -> None:
    found = heldout_metrics(tuned.run)
    assert found[0]["loss"] == pytest.approx(0.69315, abs=1e-4), "the model differs from its base"
    assert found[0]["margin"] == pytest.approx(0.0, abs=1e-4)
    assert found[-1]["loss"] < 0.5 and found[-1]["accuracy"] > 0.9 and found[-1]["margin"] > 0.5
    first = next(row for row in read_metrics(tuned.run / "metrics.jsonl") if row["step"] == 1)
    assert first["loss"] == pytest.approx(0.693, abs=0.05)


def test_resume_is_bit_identical(dpo_recipe: Recipe, tuned: RunResult, tmp_path: Path) -> None:
    def stop(row: dict[str, object]) -> None:
        if row["step"] == 5:
            signal.raise_signal(signal.SIGTERM)

    assert train(dpo_recipe, tmp_path / "run", stop).step == 5
    result = train(dpo_recipe, tmp_path / "run")
    assert fingerprint(result.checkpoint) == fingerprint(tuned.checkpoint)


@pytest.mark.slow
def test_reference_margins_are_recomputed_if_invalid(
    dpo_recipe: Recipe, tuned: RunResult, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "reference.safetensors").write_bytes(b"torn")
    again = train(dpo_recipe, run)
    assert fingerprint(again.checkpoint) == fingerprint(tuned.checkpoint)
    other = with_train(dpo_recipe, dpo_beta=0.1)
    assert train(other, tmp_path / "other").is_finished  # another β has the same reference margins
    ours = load_file(run / "reference.safetensors")["margins"]
    theirs = load_file(tmp_path / "other" / "reference.safetensors")["margins"]
    assert torch.equal(ours, theirs)
