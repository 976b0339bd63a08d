"""Packing changes neither the loss nor the examples, and only answers are learned."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gnano.data.packed_dataset import IGNORE_INDEX, Batch
from gnano.data.sft.chat_template import ALPACA
from gnano.data.sft.conversations import parse_conversation
from gnano.data.sft.encoding import Example, encode_conversation
from gnano.data.sft.record_loading import read_record_files
from gnano.data.sft.sft_dataset import SFTDataset
from gnano.model.transformer import GPT
from gnano.tokenizer.train_bpe import train_bpe

DOLLY = Path(__file__).parents[4] / "shared/data/databricks-dolly-15k"
V, T = 130, 32


def examples(count: int = 40) -> list[Example]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        n = int(rng.integers(4, 30))
        learned = np.zeros(n, bool)
        learned[int(rng.integers(1, n)) :] = True
        made.append(Example(rng.integers(1, V, n).astype(np.int32), learned))
    return made


def model() -> GPT:
    torch.manual_seed(0)
    return GPT(V, 32, 2, 4, 2, 48, T)


def gradient(model: GPT, batches: list[Batch]) -> tuple[float, torch.Tensor]:
    """Return the mean loss over the answers' tokens and its gradient."""
    counted = sum(int((batch.targets_BT != IGNORE_INDEX).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = model.loss(batch.inputs_BT, batch.targets_BT, document_ids_BT=batch.segments_BT)
        (loss / counted).backward()
        total += loss.item() / counted
    grad = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return total, grad


def test_packed_rows_give_the_gradient_of_the_examples_one_at_a_time() -> None:
    net, packed = model(), SFTDataset([examples()], [1.0], T, seed=0)
    assert len(packed.rows) < 30
    batch = packed.collate(packed.rows)
    loss, grad = gradient(net, [batch])
    alone = []
    for ids, learned, _ in packed.items:  # without rows, segments and padding
        inputs = torch.from_numpy(ids[None, :-1].astype(np.int64))
        targets = torch.from_numpy(
            np.where(learned[1:], ids[1:], IGNORE_INDEX)[None].astype(np.int64)
        )
        alone.append(Batch(inputs, targets, None))
    expected, expected_gradient = gradient(net, alone)
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(grad, expected_gradient, rtol=1e-4, atol=1e-6)
    padded = SFTDataset([examples()], [1.0], T, seed=0, packing=False)
    assert len(padded.rows) == 40
    loss, grad = gradient(net, [padded.collate(padded.rows)])
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(grad, expected_gradient, rtol=1e-4, atol=1e-6)


def test_prompts_and_padding_are_not_learned() -> None:
    rows = SFTDataset([examples()], [1.0], T, seed=0)
    batch = rows.collate(rows.rows)
    learned = sum(int(example.loss_mask[1:].sum()) for example in rows.items)
    assert int((batch.targets_BT != IGNORE_INDEX).sum()) == learned


def test_the_packing_stats_are_correct() -> None:
    long = [Example(np.arange(1, 101, dtype=np.int32), np.arange(100) > 60), *examples(3)]
    rows = SFTDataset([long], [1.0], T, seed=0)
    assert "4 examples in" in rows.packing_stats() and "1 examples cut" in rows.packing_stats()
    with pytest.raises(ValueError, match="no row to train on"):
        SFTDataset([[]], [1.0], T, seed=0)


@pytest.mark.slow
@pytest.mark.skipif(not DOLLY.is_dir(), reason="the real Dolly in ../shared/data is not here")
def test_real_instructions_fill_their_rows() -> None:
    conversations = read_record_files([str(DOLLY)], parse_conversation).records[:3_000]
    texts = [turn.content for c in conversations[:400] for turn in c.turns]
    tokenizer = train_bpe(texts, 2_000)
    encoded = [encode_conversation(c, ALPACA, tokenizer) for c in conversations]
    rows = SFTDataset([encoded], [1.0], 1_024, seed=0)
    used = sum(example.num_positions for example in rows.items)
    assert used / (len(rows.rows) * 1_024) > 0.98, rows.packing_stats()
