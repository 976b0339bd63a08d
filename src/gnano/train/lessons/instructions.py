"""Instruction tuning (SFT): questions and answers, of which the answers count in the loss.

Nats a token are what tuning is usually reported in; bits a byte compare across tokenizers, and
with the loss on texts. An evaluation covers all held-out answers, so that any two are comparable.
"""

import math
from typing import Any

import numpy as np
import torch

from gnano.data.batches import Batch
from gnano.data.instructions.config import InstructionConfig
from gnano.data.instructions.conversations import Conversation
from gnano.data.instructions.encoding import Example, encode
from gnano.data.instructions.gathering import Gathered, gather_conversations
from gnano.data.instructions.rows import InstructionRows
from gnano.model.gpt import GPT
from gnano.train.heldout import cost
from gnano.train.lessons.lessons import HeldoutExamples, SummedLoss, TuningTask
from gnano.train.ranks.world import World
from gnano.train.recipe import Recipe


class Instructions(TuningTask):
    rows: InstructionRows

    def load_records(self, config: InstructionConfig) -> Gathered[Conversation]:
        return gather_conversations(config)

    def encode(self, record: Conversation) -> Example:
        return encode(record, self.template, self.tokenizer)

    def pack(
        self, sources: list[Any], weights: list[float], seed: int, packing: bool
    ) -> InstructionRows:
        return InstructionRows(sources, weights, self.length, seed, packing)

    def measure(self, recipe: Recipe, world: World) -> HeldoutExamples:
        token_bytes = torch.from_numpy(self.tokenizer.token_bytes.astype(np.int64))

        def answer_cost(model: GPT, batch: Batch) -> torch.Tensor:
            return cost(model, token_bytes, batch)

        return HeldoutExamples(
            self.heldout, recipe.train.micro_batch, world, answer_cost, AnswerLoss
        )


class AnswerLoss(SummedLoss):
    """Nats, bytes and tokens of the answers, their end-of-text included, by category."""

    @property
    def value(self) -> float:
        """Bits per byte."""
        return self.total(0) / math.log(2) / self.total(1)

    def as_dict(self) -> dict[str, Any]:
        sums = self.sums.items()
        bits = {name: nats / math.log(2) / size for name, (nats, size, _) in sums}
        losses = {name: nats / tokens for name, (nats, _, tokens) in sums}
        return {
            "bits_per_byte": round(self.value, 5),
            "sources": {name: round(value, 5) for name, value in bits.items()},
            "loss": round(self.total(0) / self.total(2), 5),
            "losses": {name: round(loss, 5) for name, loss in losses.items()},
        }
