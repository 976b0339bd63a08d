"""The self-test of numbers passes here, and notices wrong attention, NaN and wrong decoding."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gnano.doctor import numeric_tests
from gnano.doctor.numeric_tests import MASKS, numeric_parts
from gnano.doctor.trial_runs import BASE, prepare_trial
from gnano.model import transformer
from gnano.model.attention import attend

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    prepare_trial(folder, "cpu")
    return folder / BASE


def run(base: Path, prefix: str) -> dict[str, str]:
    """Return the status of each quick test whose name begins with the prefix."""
    parts = [part for name, part in numeric_parts(CPU, base, quick=True) if name.startswith(prefix)]
    return {check.name: check.status for part in parts for check in part()}


def test_this_machine_passes(base):
    found = run(base, "")
    expected = {f"layer {p} eager, {mask}" for p in ("fp32", "bf16") for mask in MASKS}
    assert found == dict.fromkeys([*expected, "decoding fp32 eager"], "ok")


def test_compiled_code_that_cannot_be_tested_is_unknown(base, monkeypatch):
    reason = "torch.compile needs a compiler."
    monkeypatch.setattr(numeric_tests, "compile_unsupported_reason", lambda _: reason)
    name, part = numeric_parts(CPU, base, quick=False)[-1]
    [check] = part()
    assert (name, check.status) == ("compiled code", "unknown") and reason in check.found


def without_mask(q, k, v, dropout=0.0, mask=None):
    return attend(q, k, v, dropout, None)


def with_nan(q, k, v, dropout=0.0, mask=None):
    y = attend(q, k, v, dropout, mask)
    return y.masked_fill(torch.arange(y.shape[2])[:, None] == 100, torch.nan)


@pytest.mark.parametrize(
    ("fault", "wrong"), [(without_mask, MASKS[1:]), (with_nan, MASKS)], ids=["mask", "nan"]
)
def test_wrong_attention_is_a_problem(base, fault, wrong, monkeypatch):
    def faulty(q, *others):  # the reference, in fp64, is right
        return (attend if q.dtype == torch.float64 else fault)(q, *others)

    monkeypatch.setattr(transformer, "attend", faulty)
    found = run(base, "layer fp32")
    problems = {name.split(", ")[1] for name, status in found.items() if status == "problem"}
    assert problems == set(wrong)


def test_decoding_that_overlooks_the_newest_key_is_a_problem(base, monkeypatch):
    def faulty(q, k, v, dropout=0.0, mask=None):
        if q.shape[2] == 1 and mask is None and k.shape[2] > 1:
            k, v = F.pad(k[:, :, :-1], (0, 0, 0, 1)), F.pad(v[:, :, :-1], (0, 0, 0, 1))
        return attend(q, k, v, dropout, mask)

    monkeypatch.setattr(transformer, "attend", faulty)
    assert set(run(base, "decoding").values()) == {"problem"}
