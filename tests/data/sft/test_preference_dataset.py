"""Both answers of a pair are in one row with the same prompt, and only they are learned."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnano.data.packed_dataset import IGNORE_INDEX
from gnano.data.sft.chat_template import ALPACA, CHATML
from gnano.data.sft.conversations import Conversation, Preference, Turn
from gnano.data.sft.encoding import (
    MIN_PROMPT_TOKENS,
    Example,
    PreferencePair,
    encode_conversation,
    encode_preference,
)
from gnano.data.sft.sft_dataset import PreferenceDataset
from gnano.tokenizer.train_bpe import train_bpe

V, T = 130, 64


def pair(prompt: int, chosen: int, rejected: int, seed: int = 0) -> PreferencePair:
    """Return a pair with these numbers of ids."""
    rng = np.random.default_rng([seed, prompt, chosen, rejected])
    front = rng.integers(1, V, prompt)
    sides = []
    for size in (chosen, rejected):
        ids = np.concatenate([front, rng.integers(1, V, size)]).astype(np.int32)
        sides.append(Example(ids, np.arange(prompt + size) >= prompt))
    return PreferencePair(sides[0], sides[1])


def pairs(count: int = 30, seed: int = 0) -> list[PreferencePair]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 14, (count, 3)).tolist()
    return [pair(p, c, r, seed=n) for n, (p, c, r) in enumerate(sizes)]


def rows_of(*sources: list[PreferencePair], packing: bool = True) -> PreferenceDataset:
    return PreferenceDataset(sources, [1.0] * len(sources), T, seed=3, beta=0.1, packing=packing)


@pytest.mark.parametrize("template", [ALPACA, CHATML])
def test_both_examples_have_the_same_prompt_and_learn_only_the_last_answer(template) -> None:
    tokenizer = train_bpe(["Where is it? Here, and there. " * 9] * 3, 265)
    turns = (Turn("user", "Hi", "a map"), Turn("assistant", "Yes?"), Turn("user", "Where?"))
    made = encode_preference(Preference(turns, "Here.", "Over there."), template, tokenizer)
    for side, answer in ((made.chosen, "Here."), (made.rejected, "Over there.")):
        alone = encode_conversation(
            Conversation((*turns, Turn("assistant", answer))), template, tokenizer
        )
        assert side.ids.tolist() == alone.ids.tolist()
        learned = side.ids[side.loss_mask].tolist()
        assert learned == [*tokenizer.encode(answer), tokenizer.end_of_text_id]
        assert side.ids.tolist()[-len(learned) :] == learned
    prompts = [side.ids[~side.loss_mask].tolist() for side in (made.chosen, made.rejected)]
    assert prompts[0] == prompts[1] and not made.is_truncated


@given(
    prompt=st.integers(1, 90),
    chosen=st.integers(1, 90),
    rejected=st.integers(1, 90),
    length=st.integers(2, 150),
)
def test_a_truncated_pair_loses_prompt_before_answers(
    prompt: int, chosen: int, rejected: int, length: int
) -> None:
    complete = pair(prompt, chosen, rejected)
    short = complete.truncate(length)
    if complete.num_positions <= length:
        assert short is complete
        return
    assert short.is_truncated and length - 1 <= short.num_positions <= length
    kept = [int((~side.loss_mask).sum()) for side in (short.chosen, short.rejected)]
    assert kept[0] == kept[1] >= min(MIN_PROMPT_TOKENS, prompt, max(length // 4, 1))
    lost = []
    for side, before in ((short.chosen, complete.chosen), (short.rejected, complete.rejected)):
        start, size = prompt - kept[0], len(side.ids)
        assert size > kept[0], "nothing of an answer is left"
        assert side.ids.tolist() == before.ids[start : start + size].tolist()
        assert side.loss_mask.tolist() == before.loss_mask[start : start + size].tolist()
        lost.append(len(before.ids) - start - size)
    if any(lost):
        assert kept[0] <= max(min(MIN_PROMPT_TOKENS, length // 4), 1), (
            "an answer is cut though there is more of the prompt"
        )
        assert chosen == rejected or lost[chosen < rejected] >= lost[chosen > rejected]


def test_a_pair_is_two_segments_of_one_row() -> None:
    rows = rows_of(pairs())
    assert len(rows.rows) < 20
    batch = rows.collate(rows.rows)
    assert batch.segments_BT is not None
    numbers = [index for row in rows.rows for index in row]
    counts = batch.targets_BT != IGNORE_INDEX
    assert torch.equal(counts, batch.signs_BT != 0)
    assert not batch.pair_index_BT[~counts].any()
    for number, index in enumerate(numbers):
        mine = (batch.pair_index_BT == number) & counts
        assert len(mine.nonzero()[:, 0].unique()) == 1
        segments = []
        for side, sign in ((rows.items[index].chosen, 1), (rows.items[index].rejected, -1)):
            where = mine & (batch.signs_BT == sign)
            assert batch.targets_BT[where].tolist() == side.ids[side.loss_mask].tolist()
            (segment,) = batch.segments_BT[where].unique().tolist()
            row = int(where.nonzero()[0, 0])
            inside = batch.segments_BT[row] == segment
            assert batch.inputs_BT[row][inside].tolist() == side.ids[:-1].tolist()
            segments.append(segment)
        assert segments[1] == segments[0] + 1


def test_every_epoch_has_every_pair_once_in_another_order() -> None:
    rows = rows_of(pairs(), pairs(9, seed=1))
    per_epoch = len(rows.rows)
    dealt = [[rows.locate(e * per_epoch + i) for i in range(per_epoch)] for e in range(3)]
    for epoch, places in enumerate(dealt):
        assert [e for e, _ in places] == [epoch] * per_epoch
        assert Counter(i for _, row in places for i in rows.rows[row]) == Counter(range(39))
    assert len({tuple(row for _, row in places) for places in dealt}) == 3


def test_a_sample_depends_on_nothing_but_its_number() -> None:
    rows, again = rows_of(pairs()), rows_of(pairs())
    rows.reference_margins = again.reference_margins = np.arange(30, dtype=np.float32)
    together = rows.read_batch(range(12))
    alone = [again.read_batch([i]) for i in reversed(range(12))][::-1]
    for name in ("inputs_BT", "targets_BT", "segments_BT", "signs_BT", "reference_margins_P"):
        parts = torch.cat([getattr(batch, name) for batch in alone])
        assert torch.equal(getattr(together, name), parts), name
    nats = torch.rand(12, T)
    margins = [batch.compute_margins(row) for batch, row in zip(alone, nats.split(1), strict=True)]
    torch.testing.assert_close(together.compute_margins(nats), torch.cat(margins))


def test_each_pair_has_its_own_reference_margin() -> None:
    rows = rows_of(pairs())
    assert not rows.collate([[4, 1], [7]]).reference_margins_P.any()
    rows.reference_margins = np.arange(30, dtype=np.float32)
    assert rows.collate([[4, 1], [7]]).reference_margins_P.tolist() == [4, 1, 7]


def test_the_packing_stats_are_correct() -> None:
    rows = rows_of([pair(60, 9, 9), pair(10, 5, 5)], packing=False)
    assert len(rows.rows) == 2 and rows.missing(range(9)) is None
    # 2 × 14 of 28 positions of the short pair; of the long one as much as fits
    assert (
        "2 pairs in 2 rows of 64: 28.1% padding, 92 tokens used, 28 of them" in rows.packing_stats()
    )
    assert "1 pairs cut" in rows.packing_stats()
    with pytest.raises(ValueError, match="no row to train on"):
        rows_of([])
