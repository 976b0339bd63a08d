"""Gain of packing instruction examples into full rows, compared with padding.

    python benchmarks/packing.py dolly.jsonl [--tokenizer FOLDER] [--examples 96] [--rounds 5]

The same examples at T = 1,024 go through the same model (shape `10m`), forward and backward, in
micro-batches of 4 rows: packed first-fit; one per row, padded to the longest of its four, as in
common collators; and one per row, padded to T. They take turns; ratios are within a round. The
share of useful tokens is reported for the whole file.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from gnano.config.model_config import PRESETS
from gnano.data.packed_dataset import IGNORE_INDEX
from gnano.data.sft.chat_template import ALPACA
from gnano.data.sft.conversations import parse_conversation
from gnano.data.sft.encoding import encode_conversation
from gnano.data.sft.record_loading import read_record_files
from gnano.data.sft.sft_dataset import SFTDataset
from gnano.model.transformer import GPT
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.utils.platform_support import disable_malloc_trim

T, MICRO_BATCH_SIZE = 1_024, 4
Task = Callable[[], None]


def make_task(
    model: GPT, rows: SFTDataset, groups: Sequence[Sequence[Sequence[int]]], truncate: bool
) -> Task:
    def task() -> None:
        for group in groups:
            x, y, segments = rows.collate(group)
            if truncate:  # to the longest of these
                longest = max(rows.items[i].num_positions for row in group for i in row)
                x, y, segments = x[:, :longest], y[:, :longest], None
            loss = model.loss(x, y, document_ids_BT=segments)
            (loss / max(int((y != IGNORE_INDEX).sum()), 1)).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    return task


def split_micro_batches(rows: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
    return [
        rows[start : start + MICRO_BATCH_SIZE] for start in range(0, len(rows), MICRO_BATCH_SIZE)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer; by default GPT-2's")
    parser.add_argument("--examples", type=int, default=96, help="number of examples computed")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else load_gpt2_tokenizer()
    loaded = read_record_files(args.files, parse_conversation)
    print("\n".join(loaded.warnings) or "every record can be used")
    started = time.perf_counter()
    examples = [encode_conversation(c, ALPACA, tokenizer) for c in loaded.records]
    encoded = time.perf_counter()
    rows = SFTDataset([examples], [1.0], T, seed=0)
    print(rows.packing_stats())
    print(f"encoded in {encoded - started:.1f} s, packed in {time.perf_counter() - encoded:.2f} s")
    padded = SFTDataset([examples], [1.0], T, seed=0, packing=False)
    print(f"padded to {T:,}: {padded.packing_stats()}")

    disable_malloc_trim()
    few = SFTDataset([examples[: args.examples]], [1.0], T, seed=0)
    shape = replace(PRESETS["10m"], vocab_size=tokenizer.vocab_size, block_size=T)
    model = GPT.from_config(shape)
    model.compute_dtype = torch.bfloat16
    single = [[number] for number in range(len(few.items))]
    tasks = {
        "packed": make_task(model, few, split_micro_batches(few.rows), truncate=False),
        "padded to the longest of 4": make_task(
            model, few, split_micro_batches(single), truncate=True
        ),
        f"padded to {T:,}": make_task(model, few, split_micro_batches(single), truncate=False),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(args.rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            task()
            times[name].append(time.perf_counter() - started)
    used = sum(example.num_positions for example in few.items)
    for name, took in times.items():
        ratio = statistics.median(b / a for a, b in zip(times["packed"], took, strict=True))
        speed = used / statistics.median(took)
        print(
            f"{name}: {statistics.median(took):.2f} s, {speed:,.0f} useful tokens/s, {ratio:.2f} ×"
        )


if __name__ == "__main__":
    main()
