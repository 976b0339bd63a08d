"""`PrefixCache`: keys and values of the beginnings of prompts, kept for prompts that share them.

A prompt is computed in blocks that begin at fixed positions, and each block is stored under all ids
up to its end:

    prompt   │ block 0 │ block 1 │ rest      blocks 0 and 1 are stored
    another  │ block 0 │ other …             block 0 is found

Only complete blocks of prompts are stored. Their values are those that computing the prompt again
would give, bit for bit, so a text does not depend on what is in the cache. Generated tokens, which
round differently, and the rest of a prompt are computed again.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from gnano.model.attention import KVCache

PREFILL_BLOCK = 128  # tokens of a prompt computed together; smaller blocks take longer
DEFAULT_BYTES = 2**28  # 10,922 tokens of the `1b` shape in bf16


class PrefixCache:
    """Blocks of prompts of one model, at most `max_bytes` of them; the least used are dropped."""

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        # all ids up to the end of a block -> its keys and values, the least recently used first
        self.blocks: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def restore(self, ids: tuple[int, ...], row: KVCache) -> int:
        """Fill an empty cache of one row with known blocks of a prompt; return their tokens.

        At least the last token of the prompt is left to compute, for its logits.
        """
        found = []
        for end in range(PREFILL_BLOCK, len(ids), PREFILL_BLOCK):
            if ids[:end] not in self.blocks:
                break
            found.append(ids[:end])
        # the beginning last: without it, its continuations could not be found
        for key in reversed(found):
            self.blocks.move_to_end(key)
            span = slice(len(key) - PREFILL_BLOCK, len(key))
            for layer, (k_KTE, v_KTE) in zip(row.layers, self.blocks[key], strict=True):
                layer.k_BKTE[0, :, span], layer.v_BKTE[0, :, span] = k_KTE, v_KTE
        row.lengths[0] = len(found) * PREFILL_BLOCK
        return len(found) * PREFILL_BLOCK

    def store(self, ids: tuple[int, ...], row: KVCache) -> None:
        """Store the complete blocks of a prompt that a cache of one row begins with."""
        first = row.layers[0].k_BKTE
        block_bytes = 2 * len(row.layers) * first[0, :, :PREFILL_BLOCK].nbytes
        num_blocks = min(len(ids) // PREFILL_BLOCK, self.max_bytes // block_bytes)
        for end in range(num_blocks * PREFILL_BLOCK, 0, -PREFILL_BLOCK):
            if ids[:end] not in self.blocks:
                span = slice(end - PREFILL_BLOCK, end)
                pairs = [(x.k_BKTE[0, :, span], x.v_BKTE[0, :, span]) for x in row.layers]
                self.blocks[ids[:end]] = torch.stack([torch.stack(pair) for pair in pairs])
                self.num_bytes += block_bytes
            self.blocks.move_to_end(ids[:end])
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= self.blocks.popitem(last=False)[1].nbytes
