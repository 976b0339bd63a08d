"""What do fewer bits cost? Bits per byte of held-out text, as the weights are kept.

    python benchmarks/quantization.py runs/demo data/demo

The same documents for all; fp32 is the checkpoint itself.
"""

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from gnano.data import Corpus, heldout_batches
from gnano.infer import Dtype, Engine, Quant
from gnano.infer.speed import weight_bytes
from gnano.model import IGNORE

KINDS: dict[str, tuple[Dtype, Quant]] = {
    "fp32": ("fp32", ""),
    "bf16": ("bf16", ""),
    "int8": ("bf16", "int8"),
    "int4": ("bf16", "int4"),
}


@torch.inference_mode()
def bits_per_byte(engine: Engine, corpus: Corpus, tokens: int) -> float:
    """Over so many held-out tokens of each source."""
    length = engine.model.config.block_size
    sizes = torch.from_numpy(corpus.tokenizer.token_bytes.astype("int64"))
    nats, size = 0.0, 0
    for source in range(len(corpus.names)):
        rows = corpus.heldout_rows(source, length)[: max(1, tokens // length)]
        for ids_BT, targets_BT in heldout_batches(rows, length, 8):
            logits_BTV = engine.model(ids_BT)
            counts = targets_BT != IGNORE
            nats += F.cross_entropy(
                logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=IGNORE, reduction="sum"
            ).item()
            size += int(sizes[targets_BT[counts]].sum())
    return nats / math.log(2) / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokens", type=int, default=20_000, help="of each source")
    asked = parser.parse_args()
    corpus = Corpus(asked.data)
    base = 0.0
    for name, (dtype, quant) in KINDS.items():
        engine = Engine.load(asked.run, "cpu", dtype, quant)
        started = time.perf_counter()
        found = bits_per_byte(engine, corpus, asked.tokens)
        base = base or found
        print(
            f"{name}  {found:.4f} bits per byte, {found / base - 1:+.2%}; a step reads "
            f"{weight_bytes(engine.model) / 1e6:,.1f} MB ({time.perf_counter() - started:.0f} s)"
        )


if __name__ == "__main__":
    main()
