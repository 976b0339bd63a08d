"""How long does tuning take? Steps of recipe `1b-sft` on packed rows, beside pretraining's.

    python benchmarks/tuning.py dolly.jsonl                          shape 1b, on a GPU
    python benchmarks/tuning.py dolly.jsonl --shape demo --steps 3   anywhere: proves the code

The trainer's own steps from random weights: those of the recipe, in which attention stays inside
each example; the same with an adapter of rank 16; and the same rows without borders, as pretraining
has them. They take turns; medians are told, and how long the recipe's epochs take at that pace.
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
from gnano.data.sft.chat_template import ALPACA, encode_conversation
from gnano.data.sft.record_loading import read_conversation_files
from gnano.data.sft.sft_dataset import SFTDataset
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer
from gnano.train.data_loader import PrefetchLoader
from gnano.train.distributed.context import DistContext
from gnano.train.train_step import TrainState

WARMUP = 2  # steps that compile


def setups(recipe: Recipe) -> dict[str, Recipe]:
    """What is compared, by name."""
    adapter = replace(recipe.train, lora=LoraConfig(rank=16))
    return {
        "tuning": recipe,
        "tuning an adapter": replace(recipe, train=adapter),
        "pretraining": recipe,
    }


def stepping(
    recipe: Recipe, rows: SFTDataset, world: DistContext, borders: bool
) -> Callable[[int], float]:
    with tempfile.TemporaryDirectory() as empty:
        trainee = TrainState(recipe, Path(empty), world)
    feed = PrefetchLoader(rows, world, recipe.train)

    def step(number: int) -> float:
        micros = feed.next_micro_batches(number)
        if not borders:
            micros = [Batch(*micro[:2], None) for micro in micros]
        started = time.perf_counter()
        trainee.train_step(micros, number)[0].item()
        return time.perf_counter() - started

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", help="instructions, such as Dolly's JSONL")
    parser.add_argument("--shape", default="1b", choices=list(PRESETS))
    parser.add_argument("--tokenizer", type=Path, help="a folder that has one; by default GPT-2's")
    parser.add_argument("--steps", type=int, default=10, help="measured of each")
    asked = parser.parse_args()
    tokenizer = Tokenizer.load(asked.tokenizer) if asked.tokenizer else load_gpt2_tokenizer()
    recipe = load_recipe("1b-sft")
    shape = replace(PRESETS[asked.shape], vocab_size=tokenizer.vocab_size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = replace(recipe.train, device=device, precision="bf16", compile="yes")
    recipe = replace(recipe, model=shape, train=settings)

    conversations = read_conversation_files(asked.files).records
    examples = [encode_conversation(one, ALPACA, tokenizer) for one in conversations]
    rows = SFTDataset([examples], [1.0], shape.block_size, seed=0)
    where = torch.cuda.get_device_name() if device == "cuda" else device
    print(f"{asked.shape} on {where}: {rows.packing_stats()}")
    world = DistContext.init(device)
    steps = {
        name: stepping(of, rows, world, borders=name != "pretraining")
        for name, of in setups(recipe).items()
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARMUP + asked.steps):
        for name, step in steps.items():
            times[name].append(step(number))
    usual = {name: statistics.median(took[WARMUP:]) for name, took in times.items()}
    epochs = recipe.tuning_data.epochs
    whole = epochs * len(rows.rows) * shape.block_size
    for name, seconds in usual.items():
        speed = settings.tokens_per_step / seconds
        print(
            f"{name:<18} {seconds * 1e3:8,.0f} ms a step, {speed:9,.0f} tokens/s, "
            f"{usual['pretraining'] / seconds:.2f} × pretraining; "
            f"{epochs:g} epochs in {whole / speed / 60:.1f} min"
        )


if __name__ == "__main__":
    main()
