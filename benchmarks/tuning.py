"""Speed of fine-tuning with recipe `1b-sft` on packed rows, compared with pretraining.

    python benchmarks/tuning.py dolly.jsonl                          shape 1b, on a GPU
    python benchmarks/tuning.py dolly.jsonl --shape demo --steps 3   anywhere, to test the code

The trainer's steps from random weights: those of the recipe, in which attention stays inside each
example; the same with a LoRA adapter of rank 16; and the same rows without document boundaries, as
in pretraining. They take turns; medians are reported, and the time of the recipe's epochs.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from gnano.config.model_config import PRESETS, LoraConfig
from gnano.config.recipe import Recipe, load_recipe
from gnano.data.packed_dataset import Batch
from gnano.data.sft.chat_template import ALPACA
from gnano.data.sft.conversations import parse_conversation
from gnano.data.sft.encoding import encode_conversation
from gnano.data.sft.record_loading import read_record_files
from gnano.data.sft.sft_dataset import SFTDataset
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.train.distributed.context import DistContext
from gnano.train.train_step import PrefetchLoader, TrainState

WARMUP = 2  # steps that compile


def list_setups(recipe: Recipe) -> dict[str, Recipe]:
    """Return the compared recipes by name."""
    adapter = replace(recipe.train, lora=LoraConfig(rank=16))
    return {
        "tuning": recipe,
        "tuning an adapter": replace(recipe, train=adapter),
        "pretraining": recipe,
    }


def make_step(
    recipe: Recipe, rows: SFTDataset, world: DistContext, boundaries: bool
) -> Callable[[int], float]:
    with tempfile.TemporaryDirectory() as empty:
        train_state = TrainState(recipe, Path(empty), world)
    loader = PrefetchLoader(rows, world, recipe.train)

    def step(number: int) -> float:
        micro_batches = loader.next_micro_batches(number)
        if not boundaries:
            micro_batches = [Batch(*micro[:2], None) for micro in micro_batches]
        started = time.perf_counter()
        train_state.train_step(micro_batches, number)[0].item()
        return time.perf_counter() - started

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", help="instruction files, such as Dolly's JSONL")
    parser.add_argument("--shape", default="1b", choices=list(PRESETS))
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer; by default GPT-2's")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each")
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else load_gpt2_tokenizer()
    recipe = load_recipe("1b-sft")
    shape = replace(PRESETS[args.shape], vocab_size=tokenizer.vocab_size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = replace(recipe.train, device=device, precision="bf16", compile="yes")
    recipe = replace(recipe, model=shape, train=settings)

    conversations = read_record_files(args.files, parse_conversation).records
    examples = [encode_conversation(one, ALPACA, tokenizer) for one in conversations]
    rows = SFTDataset([examples], [1.0], shape.block_size, seed=0)
    where = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"{args.shape} on {where}: {rows.packing_stats()}")
    with DistContext.init(device) as world:
        steps = {
            name: make_step(own, rows, world, boundaries=name != "pretraining")
            for name, own in list_setups(recipe).items()
        }
        times: dict[str, list[float]] = {name: [] for name in steps}
        for number in range(WARMUP + args.steps):
            for name, step in steps.items():
                times[name].append(step(number))
    medians = {name: statistics.median(took[WARMUP:]) for name, took in times.items()}
    epochs = recipe.tuning_data.epochs
    total_tokens = epochs * len(rows.rows) * shape.block_size
    for name, seconds in medians.items():
        speed = settings.tokens_per_step / seconds
        print(
            f"{name:<18} {seconds * 1e3:8,.0f} ms per step, {speed:9,.0f} tokens/s, "
            f"{medians['pretraining'] / seconds:.2f} × pretraining; "
            f"{epochs:g} epochs in {total_tokens / speed / 60:.1f} min"
        )


if __name__ == "__main__":
    main()
