"""Random orders are the same with every release of NumPy and Python.

Literal values: a run that was started with another release resumes with the same samples.
"""

import hashlib
from pathlib import Path

import pytest
import torch

import gnano
from gnano.config.model_config import ModelConfig
from gnano.data.manifest import text_position
from gnano.data.sampler import EpochSampler, MixtureSampler, feistel_permute, shuffled_indices
from gnano.demo.synthetic_text import write_passage
from gnano.model.transformer import GPT

SOURCE = Path(gnano.__file__).parent
# random waits, and a separate generator for each sampled text
RANDOM_USERS = {"utils/hf_errors.py", "infer/sampling.py"}


def test_unstable_random_functions_are_not_used() -> None:
    for file in SOURCE.rglob("*.py"):
        text = file.read_text("utf-8")
        assert "default_rng" not in text and "np.random.shuffle" not in text, file
        assert "torch.randperm" not in text, file
        if "import random" in text or "random.uniform" in text:
            assert file.relative_to(SOURCE).as_posix() in RANDOM_USERS, file


def test_the_sample_order_is_pinned() -> None:
    assert shuffled_indices((3, 0, 0), 8).tolist() == [0, 4, 7, 1, 5, 6, 3, 2]
    assert [feistel_permute((2, 0, 0, 0, 0), 8, i) for i in range(8)] == [1, 5, 0, 3, 6, 4, 2, 7]
    assert [feistel_permute((7, 0), 12, i) for i in range(12)] == [
        0,
        5,
        2,
        3,
        8,
        1,
        6,
        4,
        7,
        11,
        9,
        10,
    ]
    sampler = MixtureSampler([[5, 4], [3]], [0.7, 0.3], 5)
    places = [tuple(sampler.locate(sample)) for sample in (0, 1, 2, 999, 1000, 12345)]
    assert places == [
        *[(0, 0, 0, 4), (0, 0, 0, 2), (0, 0, 0, 3)],
        *[(0, 77, 1, 2), (0, 77, 1, 0), (1, 1236, 0, 2)],
    ]


def test_the_epoch_order_is_pinned() -> None:
    sampler = EpochSampler([3, 2], [1.0, 1.5], 7)
    first = [(0, 1, 0), (0, 1, 1), (0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)]
    second = [(1, 0, 2), (1, 0, 1), (1, 1, 1), (1, 0, 0), (1, 1, 1), (1, 1, 0)]
    assert [sampler.locate(sample) for sample in range(12)] == first + second


def test_the_heldout_hash_is_pinned() -> None:
    assert text_position("the brown fox") == 8746861518574871663


def test_generated_texts_are_pinned() -> None:
    """By Python's own generator, of which only `random()` is promised."""
    for seed, expected in enumerate(("ba910a3b6504d987", "63b736bfff52f69e")):
        text = "".join(write_passage(seed, number) for number in range(200))
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == expected


def test_initial_weights_are_pinned() -> None:
    """To rounding: processors compute a normal distribution in different ways."""
    torch.manual_seed(5)
    shape = ModelConfig(
        vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_kv_head=1, ffn_hidden=24, block_size=8
    )
    found = GPT.from_config(shape).lm_head.weight[0, :4].tolist()
    assert found == pytest.approx([-0.0304568, -0.0060389, 0.0026035, -0.0124161], abs=1e-6)
