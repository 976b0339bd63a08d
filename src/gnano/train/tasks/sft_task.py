"""Supervised fine-tuning (SFT): questions and answers, of which the answers count in the loss.

The loss in nats per token is what fine-tuning usually reports; bits per byte compare across
tokenizers, and with the loss on text. An evaluation covers all held-out answers, so that any two
are comparable.
"""

import math
from typing import Any

import numpy as np
import torch

from gnano.config.data_config import InstructionConfig
from gnano.config.recipe import Recipe
from gnano.data.packed_dataset import Batch
from gnano.data.sft.chat_template import Example, encode_conversation
from gnano.data.sft.conversations import Conversation
from gnano.data.sft.record_loading import SplitRecords, load_conversations
from gnano.data.sft.sft_dataset import SFTDataset
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.heldout_loss import CategoryLoss, HeldoutExamples, sum_batch_loss
from gnano.train.tasks.training_task import TuningTask


class SFTTask(TuningTask):
    """Tunes a base on conversations."""

    dataset: SFTDataset

    def load_records(self, config: InstructionConfig) -> SplitRecords[Conversation]:
        """Read the conversations."""
        return load_conversations(config)

    def encode(self, record: Conversation) -> Example:
        """Return a conversation as token ids."""
        return encode_conversation(record, self.chat_template, self.tokenizer)

    def pack(
        self, sources: list[Any], weights: list[float], seed: int, packing: bool
    ) -> SFTDataset:
        """Return the examples in rows."""
        return SFTDataset(sources, weights, self.sequence_length, seed, packing)

    def build_heldout(self, recipe: Recipe, world: DistContext) -> HeldoutExamples:
        """Return the held-out answers."""
        token_bytes = torch.from_numpy(self.tokenizer.token_bytes.astype(np.int64))

        def sum_batch(model: GPT, batch: Batch) -> torch.Tensor:
            return sum_batch_loss(model, token_bytes, batch)

        return HeldoutExamples(
            self.heldout_rows, recipe.train.micro_batch_size, world, sum_batch, AnswerLoss
        )


class AnswerLoss(CategoryLoss):
    """Nats, bytes and tokens of the answers, their end-of-text included, by category."""

    @property
    def objective(self) -> float:
        """Bits per byte."""
        return self.total(0) / math.log(2) / self.total(1)

    def to_metrics(self) -> dict[str, Any]:
        """Return bits per byte and nats per token, in all and by category."""
        sums = self.sums.items()
        bits = {name: nats / math.log(2) / size for name, (nats, size, _) in sums}
        losses = {name: nats / tokens for name, (nats, _, tokens) in sums}
        return {
            "bits_per_byte": round(self.objective, 5),
            "sources": {name: round(value, 5) for name, value in bits.items()},
            "loss": round(self.total(0) / self.total(2), 5),
            "losses": {name: round(loss, 5) for name, loss in losses.items()},
        }
