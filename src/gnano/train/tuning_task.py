"""The tasks that tune a base model: supervised fine-tuning (SFT) and preference tuning (DPO).

They take the base's model shape and tokenizer, its chat template if it has one, and count their
steps in epochs. An evaluation covers everything that is held out, so any two are comparable.

SFT trains on questions and answers, of which the answers count in the loss. Nats per token are what
fine-tuning usually reports; bits per byte compare across tokenizers, and with the loss on text.

DPO makes the chosen answer of each pair likelier than the rejected one:

    base, all pairs ─▶ log-prob of chosen − of rejected ─▶ run/reference.safetensors

The base evaluates each pair once, before the first step, and the result is kept in the run. So no
second model is in memory during training, and a resumed run has bit-identical reference margins.
"""

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gnano.checkpoint.run_checkpoints import list_checkpoints
from gnano.config.data_config import InstructionConfig
from gnano.config.recipe import Recipe
from gnano.data.packed_dataset import Batch
from gnano.data.sft.chat_template import ALPACA, AnyTemplate, load_template, read_template
from gnano.data.sft.encoding import Example, encode_conversation, encode_preference
from gnano.data.sft.record_loading import SplitRecords, load_conversations, load_preferences
from gnano.data.sft.sft_dataset import PreferenceBatch, PreferenceDataset, SFTDataset
from gnano.data.source_files import resolve_source_files
from gnano.model.hf_io import load_config, save_tensors
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.evaluator import (
    HeldoutResult,
    HeldoutSet,
    bits_per_byte_result,
    eval_mode,
    sum_batch_loss,
)
from gnano.train.lineage import BaseCheckpoint
from gnano.train.train_step import COMPUTE_DTYPES
from gnano.train.training_task import Notify, TrainingTask
from gnano.utils.files import atomic_replace
from gnano.utils.platform_support import accumulation_dtype

REFERENCE_FILE = "reference.safetensors"


class TuningTask(TrainingTask):
    """The common part of SFT and DPO."""

    base: BaseCheckpoint
    chat_template: AnyTemplate
    dataset: SFTDataset | PreferenceDataset
    load_records: Callable[[InstructionConfig], SplitRecords[Any]]
    encode: Callable[[Any, AnyTemplate, Tokenizer], Any]  # as one or two examples of token ids
    summarize: Callable[[dict[str, list[float]]], HeldoutResult]

    def __init__(
        self,
        recipe: Recipe,
        base: BaseCheckpoint | None,
        run: Path,
        world: DistContext,
        notify: Notify,
    ) -> None:
        """Read and encode the data; raise ValueError or OSError where no base can be tuned."""
        if base is None:
            raise ValueError(
                "Tuning needs a base model. Give a run, a checkpoint or a Hugging Face folder "
                "(--from, or train.init_from)."
            )
        # a run that has checkpoints resumes without its base, unless it trains an adapter of it
        folder = next((f for f in [base.folder, *list_checkpoints(run)] if f.is_dir()), None)
        if folder is None:
            raise ValueError(base.missing_message)
        config = recipe.tuning_data
        template = load_template(config.template) if config.template else read_template(folder)
        self.base, self.chat_template = base, template or ALPACA
        self.base_config, self.tokenizer = load_config(folder), load_tokenizer(folder)
        self.sequence_length, self.beta = self.base_config.block_size, recipe.train.dpo_beta
        self.data_location = ", ".join(source.location for source in config.sources.values())
        # rank 0 downloads for all ranks that share its disk; the others find the files
        world.set_phase("downloading files from the Hub", math.inf)
        cache, notify_waiting = Path(config.cache_dir), partial(notify, waiting=True)
        for source in config.sources.values():
            world.run_on_main(partial(resolve_source_files, source, cache, notify_waiting))
        records = self.load_records(config)
        self.warnings = records.warnings
        train, heldout = (
            {
                name: [self.encode(record, self.chat_template, self.tokenizer) for record in found]
                for name, found in part.items()
            }
            for part in (records.train, records.heldout)
        )
        weights = [config.sources[name].weight for name in train]
        self.dataset = self.pack(list(train.values()), weights, config.seed, config.packing)
        self.heldout_datasets = {
            name: self.pack([part], [1.0], 0, True) for name, part in heldout.items()
        }
        self.fingerprint = _fingerprint_examples([*train.values(), *heldout.values()])
        self.steps = recipe.train.steps
        if epochs := config.epochs:
            rows = self.dataset.sampler.epoch_size
            rows_per_step = max(recipe.train.tokens_per_step // self.sequence_length, 1)
            self.steps = max(math.ceil(epochs * rows / rows_per_step), 1)
            if self.steps != recipe.train.steps:
                notify(
                    f"{epochs:g} epochs of {rows:,} rows are {self.steps:,} steps (data.epochs "
                    f"sets the number; data.epochs 0 uses train.steps)"
                )

    @abstractmethod
    def pack(self, sources: list[Any], weights: list[float], seed: int, packing: bool) -> Any:
        """Return the encoded records in rows of `sequence_length` positions."""

    @abstractmethod
    def sum_batch(self, model: GPT, batch: Any) -> Tensor:
        """Return sums over a held-out batch, in the order that `summarize` takes them."""

    def resolve(self, recipe: Recipe) -> Recipe:
        """Return the recipe with the number of steps."""
        return replace(recipe, train=replace(recipe.train, steps=self.steps))

    def load(self, recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> list[str]:
        """Return the warnings, and the size of the data."""
        datasets = dict(sorted(self.heldout_datasets.items()))
        self.heldout = HeldoutSet(
            rows={name: dataset.rows for name, dataset in datasets.items()},
            collate=lambda name, rows: datasets[name].collate(rows),
            empty_row=[],
            batch_size=recipe.train.micro_batch_size,
            world=world,
            sum_batch=self.sum_batch,
            summarize=self.summarize,
        )
        num_heldout = sum(len(dataset.items) for dataset in datasets.values())
        return [
            *self.warnings,
            f"{self.data_location}: {self.dataset.packing_stats()}; "
            f"{num_heldout:,} {self.dataset.item_name} held out",
        ]


def _fingerprint_examples(parts: Iterable[Iterable[Any]]) -> str:
    """Hash all examples: their tokens, their loss masks, and which belong together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"part")
        examples: Iterable[Example] = (example for item in part for example in item.examples)
        for example in examples:
            digest.update(len(example.ids).to_bytes(4, "little"))
            digest.update(example.ids.tobytes())
            digest.update(example.loss_mask.tobytes())
    return digest.hexdigest()


class SFTTask(TuningTask):
    """Tunes a base on conversations."""

    dataset: SFTDataset
    load_records, encode = staticmethod(load_conversations), staticmethod(encode_conversation)

    def pack(
        self, sources: list[Any], weights: list[float], seed: int, packing: bool
    ) -> SFTDataset:
        """Return the examples in rows."""
        return SFTDataset(sources, weights, self.sequence_length, seed, packing)

    def sum_batch(self, model: GPT, batch: Batch) -> Tensor:
        """Return nats, bytes and tokens [3] of the answers."""
        token_bytes = torch.from_numpy(self.tokenizer.token_bytes.astype(np.int64))
        return sum_batch_loss(token_bytes, model, batch)

    @staticmethod
    def summarize(sums: dict[str, list[float]]) -> HeldoutResult:
        """Return bits per byte and nats per token of the answers, their end-of-text included."""
        result = bits_per_byte_result(sums)
        total_nats, _, total_tokens = (sum(column) for column in zip(*sums.values(), strict=True))
        result.metrics["loss"] = round(total_nats / total_tokens, 5)
        result.metrics["losses"] = {
            name: round(nats / tokens, 5) for name, (nats, _, tokens) in sums.items()
        }
        return result


class DPOTask(TuningTask):
    """Tunes a base on pairs of answers."""

    dataset: PreferenceDataset
    load_records, encode = staticmethod(load_preferences), staticmethod(encode_preference)

    def pack(
        self, sources: list[Any], weights: list[float], seed: int, packing: bool
    ) -> PreferenceDataset:
        """Return the pairs in rows."""
        return PreferenceDataset(sources, weights, self.sequence_length, seed, self.beta, packing)

    def load(self, recipe: Recipe, run: Path, world: DistContext, notify: Notify) -> list[str]:
        """Set the reference margin of every pair, from the run's file or computed by the base."""
        datasets: list[PreferenceDataset] = [self.dataset, *self.heldout_datasets.values()]
        path, key = run / REFERENCE_FILE, {"data": self.fingerprint, "base": self.base.sha256}
        margins = world.run_on_main(partial(_read_margins, path, key))
        if margins is None or len(margins) != sum(len(data.items) for data in datasets):
            model = GPT.from_config(recipe.model).to(world.device)
            self.base.load_into(model)
            model.compute_dtype = COMPUTE_DTYPES[recipe.train.precision]
            size = recipe.train.micro_batch_size
            computed = [
                _compute_reference_margins(model, data, size, world, notify) for data in datasets
            ]
            margins = np.concatenate(computed)
            world.run_on_main(partial(_write_margins, margins, path, key))
        for data in datasets:
            count = len(data.items)
            data.reference_margins, margins = margins[:count], margins[count:]
        return super().load(recipe, run, world, notify)

    def sum_batch(self, model: GPT, batch: PreferenceBatch) -> Tensor:
        """Return the loss, the correctly ranked pairs, the margins and the pairs of a batch [4]."""
        device = next(model.parameters()).device
        dtype = accumulation_dtype(device)
        batch = batch.map_tensors(methodcaller("to", device))
        margins = (_logp_margins(model, batch) - batch.reference_margins_P).to(dtype) * batch.beta
        loss = torch.nn.functional.softplus(-margins).sum()
        count = torch.tensor(float(len(margins)), dtype=dtype, device=device)
        return torch.stack([loss, (margins > 0).to(dtype).sum(), margins.sum(), count])

    @staticmethod
    def summarize(sums: dict[str, list[float]]) -> HeldoutResult:
        """Return means per pair, and the loss by category."""
        loss, correct, margin, pairs = (sum(column) for column in zip(*sums.values(), strict=True))
        metrics = {
            "loss": round(loss / pairs, 5),
            "accuracy": round(correct / pairs, 5),
            "margin": round(margin / pairs, 5),
            "losses": {name: round(loss / pairs, 5) for name, (loss, _, _, pairs) in sums.items()},
        }
        return HeldoutResult(loss / pairs, metrics, sums)


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


def _write_margins(margins: NDArray[np.float32], path: Path, key: dict[str, str]) -> None:
    with atomic_replace(path) as temporary:
        save_tensors({"margins": torch.from_numpy(margins)}, temporary, key)


def _compute_reference_margins(
    model: GPT, dataset: PreferenceDataset, batch_size: int, world: DistContext, notify: Notify
) -> NDArray[np.float32]:
    """Return the margins of all pairs, in their order; each rank computes its share of the rows."""
    dtype = accumulation_dtype(world.device)
    margins = torch.zeros(len(dataset.items), dtype=dtype, device=world.device)
    num_rows = len(dataset.rows)
    with eval_mode(model):
        for number, first in enumerate(range(0, num_rows, batch_size)):
            world.set_phase("computing the reference margins", math.inf)
            if number % world.world_size == world.rank:
                notify(f"reference margins: row {first + 1:,} of {num_rows:,}", waiting=True)
                rows = dataset.rows[first : first + batch_size]
                batch = dataset.collate(rows).map_tensors(methodcaller("to", world.device))
                pairs = torch.tensor([index for row in rows for index in row])
                margins[pairs.to(world.device)] = _logp_margins(model, batch).to(dtype)
    return world.all_reduce_sum(margins).float().cpu().numpy()


def _logp_margins(model: GPT, batch: PreferenceBatch) -> Tensor:
    """Return each pair's log-probability of chosen − rejected answer [P], in fp32."""
    margins: list[Tensor] = []

    def loss_fn(nats_BT: Tensor) -> tuple[Tensor, Tensor]:
        margins.append(batch.compute_margins(nats_BT))
        return nats_BT.new_zeros(()), torch.zeros_like(nats_BT)

    documents_BT = batch.segments_BT
    model.loss(batch.inputs_BT, batch.targets_BT, document_ids_BT=documents_BT, loss_fn=loss_fn)
    return margins[0]
