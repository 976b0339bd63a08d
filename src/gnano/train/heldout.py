"""How well does the model know text it never saw? Bits per byte on the held-out documents.

The cost of all held-out tokens in bits, over the number of UTF-8 bytes they stand for: a
figure that does not depend on the tokenizer and compares with any compressor.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from gnano.data import Corpus, HeldoutRow, heldout_batches
from gnano.model import GPT, IGNORE


@dataclass(frozen=True)
class HeldoutLoss:
    """Nats and bytes of each source's held-out tokens."""

    nats: dict[str, float]
    bytes: dict[str, int]

    @property
    def bits_per_byte(self) -> float:
        return sum(self.nats.values()) / math.log(2) / sum(self.bytes.values())

    def as_dict(self) -> dict[str, object]:
        per_source = {
            name: round(nats / math.log(2) / self.bytes[name], 5)
            for name, nats in self.nats.items()
        }
        return {"bits_per_byte": round(self.bits_per_byte, 5), "sources": per_source}


class Heldout:
    """The held-out rows of a corpus, cut to the model's context."""

    def __init__(self, corpus: Corpus, length: int, batch: int) -> None:
        self.names, self.length, self.batch = corpus.names, length, batch
        self.rows = [corpus.heldout_rows(number, length) for number in range(len(self.names))]
        self.token_bytes = torch.from_numpy(corpus.tokenizer.token_bytes.astype(np.int64))

    def __bool__(self) -> bool:
        return any(self.rows)

    @torch.no_grad()
    def loss(self, model: GPT, tokens: int | None = None) -> HeldoutLoss:
        """Over all held-out tokens, or about so many, evenly spaced and always the same."""
        total = sum(len(rows) for rows in self.rows)
        share = 1.0 if tokens is None else min(1.0, tokens / self.length / total)
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        nats: dict[str, float] = {}
        size: dict[str, int] = {}
        for name, rows in zip(self.names, self.rows, strict=True):
            if not rows:
                continue
            sums = []
            size[name] = 0
            for x, y in heldout_batches(_spread(rows, share), self.length, self.batch, IGNORE):
                sums.append(model.loss(x.to(device), y.to(device)))
                size[name] += int(self.token_bytes[y[y != IGNORE]].sum())
            nats[name] = float(torch.stack(sums).double().sum())
        model.train(was_training)
        return HeldoutLoss(nats, size)


def _spread(rows: list[HeldoutRow], share: float) -> list[HeldoutRow]:
    count = max(1, round(share * len(rows)))
    return [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]
