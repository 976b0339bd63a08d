"""How well does the model know text it never saw? Bits per byte on the held-out documents.

The cost of all held-out tokens in bits, over the number of UTF-8 bytes they stand for: a
figure that does not depend on the tokenizer and compares with any compressor. Several ranks
share the rows and add up what they find.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from gnano.data import Corpus, HeldoutRow, heldout_batches
from gnano.model import GPT, IGNORE
from gnano.train.ranks.world import World
from gnano.train.stopping import CutShortError


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

    def __init__(
        self,
        corpus: Corpus,
        weights: dict[str, float],
        length: int,
        batch: int,
        world: World | None = None,
    ) -> None:
        self.corpus, self.length, self.batch = corpus, length, batch
        self.world = world or World(torch.device("cpu"))
        shares = corpus.weights(weights)
        self.shares = [share / sum(shares) for share in shares]
        self.token_bytes = torch.from_numpy(corpus.tokenizer.token_bytes.astype(np.int64))
        self._read()

    def __bool__(self) -> bool:
        return any(self.rows)

    def lacking(self, tokens: int) -> str | None:
        """Which source is still being prepared and has too few for `loss(model, tokens)`."""
        if self._short(tokens) is None:
            return None
        self.corpus.refresh()
        self._read()
        short = self._short(tokens)
        return short and (
            f"waiting for `gnano prepare`: held-out text of source {short!r} "
            f"in {self.corpus.folder}"
        )

    @torch.no_grad()
    def loss(
        self, model: GPT, tokens: int | None = None, stop: Callable[[], bool] = lambda: False
    ) -> HeldoutLoss:
        """Over all held-out tokens, or about so many, by the sources' weights.

        Raises CutShortError where `stop` says, on any of the ranks, that it is to end.

        These are the first of each source: the same ones whatever the budget, and already
        there when the rest is still being prepared.
        """
        if tokens is None and not self.corpus.manifest.complete:
            self.corpus.refresh()
            self._read()
        was_training = model.training
        model.eval()
        nats: dict[str, float] = {}
        size: dict[str, int] = {}
        try:
            for source, (name, rows) in enumerate(zip(self.corpus.names, self.rows, strict=True)):
                if rows:
                    part = rows if tokens is None else rows[: self._count(source, tokens)]
                    nats[name], size[name] = self._cost(model, part, stop)
        finally:
            model.train(was_training)
        return HeldoutLoss(nats, size)

    def _cost(
        self, model: GPT, rows: list[HeldoutRow], stop: Callable[[], bool]
    ) -> tuple[float, int]:
        """Nats and bytes of these rows, of which each rank computes its share."""
        device, ranks = next(model.parameters()).device, self.world.size
        cost = torch.zeros(2, dtype=torch.float64, device=device)
        for number, (x, y) in enumerate(heldout_batches(rows, self.length, self.batch)):
            if number % ranks == 0:
                self.world.doing("measuring the held-out loss")
                if self.world.most(stop())[0]:
                    raise CutShortError
            if number % ranks == self.world.rank:
                cost[0] += model.loss(x.to(device), y.to(device))
                cost[1] += int(self.token_bytes[y[y != IGNORE]].sum())
        number_of_batches = -(-len(rows) // self.batch)
        if number_of_batches % ranks and self.world.rank >= number_of_batches % ranks:
            # a sharded model is put together by all ranks, so each computes as often as the first
            nothing = torch.zeros(1, self.length, dtype=torch.long, device=device)
            model.loss(nothing, torch.full_like(nothing, IGNORE))
        nats, size = self.world.sum(cost).tolist()
        return nats, round(size)

    def _read(self) -> None:
        corpus = self.corpus
        self.rows = [corpus.heldout_rows(n, self.length) for n in range(len(corpus.names))]

    def _count(self, source: int, tokens: int) -> int:
        """How many rows of a source make up its share of so many tokens."""
        return max(1, round(tokens * self.shares[source] / self.length))

    def _short(self, tokens: int) -> str | None:
        for source, name in enumerate(self.corpus.names):
            complete = self.corpus.manifest.sources[name].complete
            # one more: while there may be others to come, the last row is not final
            if not complete and len(self.rows[source]) <= self._count(source, tokens):
                return name
        return None
