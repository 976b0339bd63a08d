"""What does packing instructions save? Rows that are full, beside rows that are padded.

    python benchmarks/packing.py dolly.jsonl [--tokenizer FOLDER] [--examples 96] [--rounds 5]

The same examples at T = 1,024 go through the same model (shape `10m`), forward and backward, in
micro-batches of 4 rows: packed first-fit; one to a row, padded to the longest of its four, as
common collators do; and one to a row, padded to T. They take turns; the ratios are within a round.
The share of useful tokens is told for the whole file.
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
from gnano.data.sft.chat_template import ALPACA, encode_conversation
from gnano.data.sft.record_loading import read_conversation_files
from gnano.data.sft.sft_dataset import SFTDataset
from gnano.model.devices import disable_malloc_trim
from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

T, MICRO = 1_024, 4
Work = Callable[[], None]


def worked(
    model: GPT, rows: SFTDataset, groups: Sequence[Sequence[Sequence[int]]], cut: bool
) -> Work:
    def work() -> None:
        for group in groups:
            x, y, segments = rows.collate(group)
            if cut:  # to the longest of these
                longest = max(rows.items[i].num_positions for row in group for i in row)
                x, y, segments = x[:, :longest], y[:, :longest], None
            loss = model.loss(x, y, document_ids_BT=segments)
            (loss / max(int((y != IGNORE_INDEX).sum()), 1)).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    return work


def in_fours(rows: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
    return [rows[start : start + MICRO] for start in range(0, len(rows), MICRO)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokenizer", type=Path, help="a folder that has one; by default GPT-2's")
    parser.add_argument("--examples", type=int, default=96, help="that are computed")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    tokenizer = Tokenizer.load(asked.tokenizer) if asked.tokenizer else load_gpt2_tokenizer()
    reading = read_conversation_files(asked.files)
    print("\n".join(reading.warnings) or "every record can be used")
    started = time.perf_counter()
    examples = [encode_conversation(c, ALPACA, tokenizer) for c in reading.records]
    encoded = time.perf_counter()
    rows = SFTDataset([examples], [1.0], T, seed=0)
    print(rows.packing_stats())
    print(f"encoded in {encoded - started:.1f} s, packed in {time.perf_counter() - encoded:.2f} s")
    padded = SFTDataset([examples], [1.0], T, seed=0, packing=False)
    print(f"padded to {T:,}: {padded.packing_stats()}")

    disable_malloc_trim()
    few = SFTDataset([examples[: asked.examples]], [1.0], T, seed=0)
    shape = replace(PRESETS["10m"], vocab_size=tokenizer.vocab_size, block_size=T)
    model = GPT.from_config(shape)
    model.compute_dtype = torch.bfloat16
    alone = [[number] for number in range(len(few.items))]
    works = {
        "packed": worked(model, few, in_fours(few.rows), cut=False),
        "padded to the longest of 4": worked(model, few, in_fours(alone), cut=True),
        f"padded to {T:,}": worked(model, few, in_fours(alone), cut=False),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(asked.beats):
        for name, work in works.items():
            started = time.perf_counter()
            work()
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
