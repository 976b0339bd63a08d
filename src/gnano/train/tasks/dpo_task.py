"""Preference tuning (DPO): pairs of answers, of which the chosen one is to become likelier.

    base, all pairs ─▶ log-prob of chosen − of rejected ─▶ run/reference.safetensors

The base evaluates each pair once, before the first step, and the result is kept in the run. Then
no second model is held in memory while the first one trains, and a run that resumes has the same
figures to the last bit.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gnano.config.data_config import InstructionConfig
from gnano.config.recipe import Recipe
from gnano.data.sft.chat_template import PreferencePair, encode_preference
from gnano.data.sft.conversations import Preference
from gnano.data.sft.record_loading import SplitRecords, load_preferences
from gnano.data.sft.sft_dataset import PreferenceBatch, PreferenceDataset
from gnano.model.devices import accumulation_dtype
from gnano.model.hf_io import save_tensors
from gnano.model.transformer import GPT
from gnano.train.base_checkpoint import BaseCheckpoint
from gnano.train.data_loader import Notify
from gnano.train.distributed.context import DistContext
from gnano.train.heldout_loss import eval_mode
from gnano.train.precision import COMPUTE_DTYPES
from gnano.train.tasks.training_task import CategoryLoss, HeldoutExamples, TuningTask
from gnano.utils.atomic_io import atomic_replace

REFERENCE_FILE = "reference.safetensors"


class DPOTask(TuningTask):
    dataset: PreferenceDataset

    def load_records(self, config: InstructionConfig) -> SplitRecords[Preference]:
        return load_preferences(config)

    def encode(self, record: Preference) -> PreferencePair:
        return encode_preference(record, self.chat_template, self.tokenizer)

    def pack(
        self, sources: list[Any], weights: list[float], seed: int, packing: bool
    ) -> PreferenceDataset:
        return PreferenceDataset(sources, weights, self.sequence_length, seed, self.beta, packing)

    def prepare(self, recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> None:
        """Set the reference margin of every pair, from the run's file or by the base."""
        groups: list[PreferenceDataset] = [self.dataset, *self.heldout_rows.values()]
        key = {"data": self.fingerprint, "base": self.base.sha256}
        known = world.run_on_main(partial(_read_margins, run / REFERENCE_FILE, key))
        if known is None or len(known) != sum(len(rows.items) for rows in groups):
            model = _load_reference_model(self.base, recipe, world)
            known = np.concatenate(
                [_compute_reference_margins(model, rows, recipe, world, notify) for rows in groups]
            )
            world.run_on_main(partial(_write_margins, run / REFERENCE_FILE, known, key))
        for rows in groups:
            rows.reference_margins, known = known[: len(rows.items)], known[len(rows.items) :]

    def build_heldout(self, recipe: Recipe, world: DistContext) -> HeldoutExamples:
        return HeldoutExamples(
            self.heldout_rows, recipe.train.micro_batch_size, world, _sum_pair_batch, PreferenceLoss
        )


class PreferenceLoss(CategoryLoss):
    """Loss, pairs ranked as preferred, margins, and number of pairs, by category."""

    @property
    def objective(self) -> float:
        return self.total(0) / self.total(3)

    def to_metrics(self) -> dict[str, Any]:
        losses = {name: sums[0] / sums[3] for name, sums in self.sums.items()}
        return {
            "loss": round(self.objective, 5),
            "accuracy": round(self.total(1) / self.total(3), 5),
            "margin": round(self.total(2) / self.total(3), 5),
            "losses": {name: round(loss, 5) for name, loss in losses.items()},
        }


def _sum_pair_batch(model: GPT, batch: PreferenceBatch) -> Tensor:
    """The sums of `PairLoss` over a batch [4], on the model's device."""
    device = next(model.parameters()).device
    dtype = accumulation_dtype(device)
    batch = batch.map_tensors(lambda tensor: tensor.to(device))
    better = (logp_margins(model, batch) - batch.reference_margins_P).to(dtype) * batch.beta
    loss = torch.nn.functional.softplus(-better).sum()
    count = torch.tensor(float(len(better)), dtype=dtype, device=device)
    return torch.stack([loss, (better > 0).to(dtype).sum(), better.sum(), count])


def logp_margins(model: GPT, batch: PreferenceBatch) -> Tensor:
    """Log-probability of the chosen answer − of the rejected one [P], fp32."""
    found: list[Tensor] = []

    def score(nats_BT: Tensor) -> tuple[Tensor, Tensor]:
        found.append(batch.compute_margins(nats_BT))
        return nats_BT.new_zeros(()), torch.zeros_like(nats_BT)

    model.loss(batch.inputs_BT, batch.targets_BT, document_ids_BT=batch.segments_BT, loss_fn=score)
    return found[0]


def _load_reference_model(base: BaseCheckpoint, recipe: Recipe, world: DistContext) -> GPT:
    model = GPT.from_config(recipe.model).to(world.device)
    base.load_into(model)
    model.compute_dtype = COMPUTE_DTYPES[recipe.train.precision]
    return model


def _compute_reference_margins(
    model: GPT, rows: PreferenceDataset, recipe: Recipe, world: DistContext, notify: Notify
) -> NDArray[np.float32]:
    """Of all pairs, in their order; each rank computes its share of the rows."""
    found = torch.zeros(
        len(rows.items), dtype=accumulation_dtype(world.device), device=world.device
    )
    batch_rows, all_rows = recipe.train.micro_batch_size, len(rows.rows)
    with eval_mode(model):
        for number, first in enumerate(range(0, all_rows, batch_rows)):
            world.set_phase("asking the base about the pairs", math.inf)
            if number % world.world_size == world.rank:
                notify(
                    f"the base's view of the pairs: row {first + 1:,} of {all_rows:,}", waiting=True
                )
                group = rows.rows[first : first + batch_rows]
                batch = rows.collate(group).map_tensors(lambda tensor: tensor.to(world.device))
                pairs = torch.tensor([index for row in group for index in row])
                found[pairs.to(world.device)] = logp_margins(model, batch).to(found.dtype)
    return world.all_reduce_sum(found).float().cpu().numpy()


def _read_margins(path: Path, key: dict[str, str]) -> NDArray[np.float32] | None:
    """None where there are none yet, or those of other data or another base."""
    try:
        with safe_open(path, framework="np") as file:
            if not key.items() <= (file.metadata() or {}).items():
                return None
            found: NDArray[np.float32] = file.get_tensor("margins")
            return found
    except (OSError, SafetensorError):
        return None


def _write_margins(path: Path, found: NDArray[np.float32], key: dict[str, str]) -> None:
    with atomic_replace(path) as temporary:
        save_tensors({"margins": torch.from_numpy(found)}, temporary, key)
