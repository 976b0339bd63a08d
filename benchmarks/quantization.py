"""What do fewer bits cost? Bits per byte of held-out text, as the weights are kept.

    python benchmarks/quantization.py runs/demo data/demo

The same documents for all; fp32 is the checkpoint itself.
"""

import argparse
import time
from pathlib import Path

from gnano.config.inference_config import LoadConfig
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals.bits_per_byte import measure_heldout
from gnano.evals.loglikelihood import GPTScorer
from gnano.evals.model_adapter import load_eval_model
from gnano.infer.throughput import count_weight_bytes

KINDS = {
    "fp32": LoadConfig(device="cpu", dtype="fp32"),
    "bf16": LoadConfig(device="cpu", dtype="bf16"),
    "int8": LoadConfig(device="cpu", dtype="bf16", quant="int8"),
    "int4": LoadConfig(device="cpu", dtype="bf16", quant="int4"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tokens", type=int, default=20_000, help="of each source")
    asked = parser.parse_args()
    corpus = TokenizedCorpus(asked.data)
    base = 0.0
    for name, loading in KINDS.items():
        subject = load_eval_model(asked.run, loading)
        assert isinstance(subject.scorer, GPTScorer)
        started = time.perf_counter()
        parts = measure_heldout(subject, corpus, asked.tokens)
        found = sum(p.bits_per_byte * p.bytes for p in parts) / sum(p.bytes for p in parts)
        base = base or found
        print(
            f"{name}  {found:.4f} bits per byte, {found / base - 1:+.2%}; a step reads "
            f"{count_weight_bytes(subject.scorer.model) / 1e6:,.1f} MB "
            f"({time.perf_counter() - started:.0f} s)"
        )


if __name__ == "__main__":
    main()
