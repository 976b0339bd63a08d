"""Preference tuning (DPO): makes the chosen answer of each pair likelier than the rejected one.

    base, all pairs ─▶ log-prob of chosen − of rejected ─▶ run/reference.safetensors

The base evaluates each pair once, before the first step, and the result is kept in the run. So no
second model is in memory during training, and a resumed run has bit-identical reference margins.
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
from gnano.train.data_loader import Notify
from gnano.train.distributed.context import DistContext
from gnano.train.heldout_loss import CategoryLoss, HeldoutExamples, eval_mode
from gnano.train.precision import COMPUTE_DTYPES
from gnano.train.tasks.training_task import TuningTask
from gnano.utils.files import atomic_replace

REFERENCE_FILE = "reference.safetensors"


class DPOTask(TuningTask):
    """Tunes a base on pairs of answers."""

    dataset: PreferenceDataset

    def load_records(self, config: InstructionConfig) -> SplitRecords[Preference]:
        """Read the pairs."""
        return load_preferences(config)

    def encode(self, record: Preference) -> PreferencePair:
        """Return a pair as two examples of token ids."""
        return encode_preference(record, self.chat_template, self.tokenizer)

    def pack(
        self, sources: list[Any], weights: list[float], seed: int, packing: bool
    ) -> PreferenceDataset:
        """Return the pairs in rows."""
        return PreferenceDataset(sources, weights, self.sequence_length, seed, self.beta, packing)

    def prepare(self, recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> None:
        """Set the reference margin of every pair, from the run's file or computed by the base."""
        datasets: list[PreferenceDataset] = [self.dataset, *self.heldout_rows.values()]
        key = {"data": self.fingerprint, "base": self.base.sha256}
        margins = world.run_on_main(partial(_read_margins, run / REFERENCE_FILE, key))
        if margins is None or len(margins) != sum(len(data.items) for data in datasets):
            model = GPT.from_config(recipe.model).to(world.device)
            self.base.load_into(model)
            model.compute_dtype = COMPUTE_DTYPES[recipe.train.precision]
            margins = np.concatenate(
                [
                    _compute_reference_margins(model, data, recipe, world, notify)
                    for data in datasets
                ]
            )
            world.run_on_main(partial(_write_margins, run / REFERENCE_FILE, margins, key))
        for data in datasets:
            count = len(data.items)
            data.reference_margins, margins = margins[:count], margins[count:]

    def build_heldout(self, recipe: Recipe, world: DistContext) -> HeldoutExamples:
        """Return the held-out pairs."""
        return HeldoutExamples(
            self.heldout_rows, recipe.train.micro_batch_size, world, _sum_pair_batch, PreferenceLoss
        )


class PreferenceLoss(CategoryLoss):
    """Sums of loss, correctly ranked pairs and margins, and the number of pairs, by category."""

    @property
    def objective(self) -> float:
        """The mean loss of a pair."""
        return self.total(0) / self.total(3)

    def to_metrics(self) -> dict[str, Any]:
        """Return means per pair, and the loss by category."""
        losses = {name: sums[0] / sums[3] for name, sums in self.sums.items()}
        return {
            "loss": round(self.objective, 5),
            "accuracy": round(self.total(1) / self.total(3), 5),
            "margin": round(self.total(2) / self.total(3), 5),
            "losses": {name: round(loss, 5) for name, loss in losses.items()},
        }


def _sum_pair_batch(model: GPT, batch: PreferenceBatch) -> Tensor:
    """Return the columns of `PreferenceLoss` for a batch [4], on the model's device."""
    device = next(model.parameters()).device
    dtype = accumulation_dtype(device)
    batch = batch.map_tensors(lambda tensor: tensor.to(device))
    margins = (logp_margins(model, batch) - batch.reference_margins_P).to(dtype) * batch.beta
    loss = torch.nn.functional.softplus(-margins).sum()
    count = torch.tensor(float(len(margins)), dtype=dtype, device=device)
    return torch.stack([loss, (margins > 0).to(dtype).sum(), margins.sum(), count])


def logp_margins(model: GPT, batch: PreferenceBatch) -> Tensor:
    """Return each pair's log-probability of chosen − rejected answer [P], in fp32."""
    margins: list[Tensor] = []

    def loss_fn(nats_BT: Tensor) -> tuple[Tensor, Tensor]:
        margins.append(batch.compute_margins(nats_BT))
        return nats_BT.new_zeros(()), torch.zeros_like(nats_BT)

    documents_BT = batch.segments_BT
    model.loss(batch.inputs_BT, batch.targets_BT, document_ids_BT=documents_BT, loss_fn=loss_fn)
    return margins[0]


def _compute_reference_margins(
    model: GPT, dataset: PreferenceDataset, recipe: Recipe, world: DistContext, notify: Notify
) -> NDArray[np.float32]:
    """Return the margins of all pairs, in their order; each rank computes its share of the rows."""
    margins = torch.zeros(
        len(dataset.items), dtype=accumulation_dtype(world.device), device=world.device
    )
    batch_rows, num_rows = recipe.train.micro_batch_size, len(dataset.rows)
    with eval_mode(model):
        for number, first in enumerate(range(0, num_rows, batch_rows)):
            world.set_phase("computing the reference margins", math.inf)
            if number % world.world_size == world.rank:
                notify(f"reference margins: row {first + 1:,} of {num_rows:,}", waiting=True)
                rows = dataset.rows[first : first + batch_rows]
                batch = dataset.collate(rows).map_tensors(lambda tensor: tensor.to(world.device))
                pairs = torch.tensor([index for row in rows for index in row])
                margins[pairs.to(world.device)] = logp_margins(model, batch).to(margins.dtype)
    return world.all_reduce_sum(margins).float().cpu().numpy()


def _read_margins(path: Path, key: dict[str, str]) -> NDArray[np.float32] | None:
    """Return the margins of a file; None where it is missing, or of other data or another base."""
    try:
        with safe_open(path, framework="np") as file:
            if not key.items() <= (file.metadata() or {}).items():
                return None
            margins: NDArray[np.float32] = file.get_tensor("margins")
            return margins
    except (OSError, SafetensorError):
        return None


def _write_margins(path: Path, margins: NDArray[np.float32], key: dict[str, str]) -> None:
    with atomic_replace(path) as temporary:
        save_tensors({"margins": torch.from_numpy(margins)}, temporary, key)
