"""Bits per byte of held-out text with quantized weights.

    python benchmarks/quantization.py runs/demo data/demo

All use the same documents; fp32 is the checkpoint itself.
"""

import argparse
import time
from pathlib import Path

from gnano.config.inference_config import LoadConfig
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.evals.loglikelihood import GPTScorer
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.runner import measure_heldout
from gnano.infer.throughput import count_weight_bytes

LOADINGS = {
    "fp32": LoadConfig(device="cpu", dtype="fp32"),
    "bf16": LoadConfig(device="cpu", dtype="bf16"),
    "int8": LoadConfig(device="cpu", dtype="bf16", quant="int8"),
    "int4": LoadConfig(device="cpu", dtype="bf16", quant="int4"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens of each source")
    args = parser.parse_args()
    corpus = TokenizedCorpus(args.data)
    base = 0.0
    for name, loading in LOADINGS.items():
        model = load_eval_model(args.run, loading)
        assert isinstance(model.scorer, GPTScorer)
        started = time.perf_counter()
        results = measure_heldout(model, corpus, args.tokens)
        bits = sum(p.bits_per_byte * p.bytes for p in results) / sum(p.bytes for p in results)
        base = base or bits
        print(
            f"{name}  {bits:.4f} bits per byte, {bits / base - 1:+.2%}; a step reads "
            f"{count_weight_bytes(model.scorer.model) / 1e6:,.1f} MB "
            f"({time.perf_counter() - started:.0f} s)"
        )


if __name__ == "__main__":
    main()
