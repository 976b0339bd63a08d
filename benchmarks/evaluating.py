"""How fast are known tasks asked, against lm-evaluation-harness on the same items and batch?

    python benchmarks/evaluating.py hellaswag_val.jsonl

A model of random weights of a shape, GPT-2's vocabulary. Reading the items as ids is part of the
time, loading the model is not. Then bits per byte of a text, against a plain transformers loop.
"""

import argparse
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from transformers import LlamaForCausalLM

from gnano.config.inference_config import InferenceDtype, LoadConfig
from gnano.config.model_config import PRESETS
from gnano.evals.bits_per_byte import measure_file
from gnano.evals.eval_tasks import TaskItems, load_tasks
from gnano.evals.harness import to_lm_eval_task
from gnano.evals.loglikelihood import compute_loglikelihoods
from gnano.evals.model_adapter import EvalModel, load_eval_model
from gnano.evals.runner import TaskScore, score_task
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

TORCH: dict[InferenceDtype, str] = {"fp32": "float32", "bf16": "bfloat16"}


def make(shape: str, folder: Path) -> None:
    """Its matrices three times as large as at the start, so that answers are clearly apart."""
    torch.manual_seed(0)
    tokenizer = load_gpt2_tokenizer()
    model = GPT.from_config(replace(PRESETS[shape], vocab_size=tokenizer.vocab_size))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    tokenizer.save(folder, model.config.block_size)
    save_model(model, folder, tokenizer.end_of_text_id)


def ours(subject: EvalModel, sheet: TaskItems, batch: int) -> tuple[float, TaskScore]:
    began = time.perf_counter()
    questions = subject.encoder.encode_items(sheet.items)
    found = score_task(sheet, compute_loglikelihoods(subject.scorer, questions, batch))
    return time.perf_counter() - began, found


def theirs(model: HFLM, sheet: TaskItems, batch: int) -> tuple[float, dict[str, Any]]:
    model.batch_size_per_gpu = batch
    began = time.perf_counter()
    found = lm_eval.simple_evaluate(
        model=model, tasks=[to_lm_eval_task(sheet)], bootstrap_iters=100
    )
    return time.perf_counter() - began, found["results"][sheet.task]


def tasks(folder: Path, sheet: TaskItems, batch: int, rounds: int) -> None:
    for dtype in TORCH:
        subject = load_eval_model(folder, LoadConfig(dtype=dtype, device="cpu"))
        peer = HFLM(
            str(folder), dtype=TORCH[dtype], device="cpu", batch_size=batch, add_bos_token=True
        )
        pairs = []
        for _ in range(rounds):
            mine, score = ours(subject, sheet, batch)
            other, found = theirs(peer, sheet, batch)
            pairs.append((len(sheet.items) / mine, len(sheet.items) / other))
        fast, slow = (median(pair[which] for pair in pairs) for which in (0, 1))
        ratios = [a / b for a, b in pairs]
        assert score.acc_norm is not None
        print(
            f"{dtype}  ours {fast:6.2f} items/s   harness {slow:6.2f}   "
            f"{median(ratios):5.2f} × ({min(ratios):.2f} to {max(ratios):.2f})   "
            f"acc {score.acc.value:.3f} and {found['acc,none']:.3f}, "
            f"acc_norm {score.acc_norm.value:.3f} and {found['acc_norm,none']:.3f}",
            flush=True,
        )


@torch.inference_mode()
def bits(folder: Path, dtype: InferenceDtype, text: Path) -> None:
    subject = load_eval_model(folder, LoadConfig(dtype=dtype, device="cpu"))
    began = time.perf_counter()
    found = measure_file(subject, text)
    mine = time.perf_counter() - began
    llama = LlamaForCausalLM.from_pretrained(folder, dtype=TORCH[dtype])
    assert subject.tokenizer is not None
    length = llama.config.max_position_embeddings
    began = time.perf_counter()
    ids = [subject.tokenizer.end_of_text_id, *subject.tokenizer.encode(text.read_text())]
    nats = 0.0
    for start in range(0, len(ids) - 1, length):
        part = torch.tensor([ids[start : start + length + 1]])
        log_probs = llama(part[:, :-1]).logits[0].float().log_softmax(-1)
        nats -= log_probs.gather(1, part[0, 1:, None]).double().sum().item()
    other = time.perf_counter() - began
    plain = nats / math.log(2) / found.bytes
    print(
        f"{dtype}  bits per byte: ours {found.bits_per_byte:.6f}, transformers {plain:.6f}, "
        f"in {mine:.1f} s and {other:.1f} s ({other / mine:.2f} ×)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("items", help="a file of items, named after its task")
    parser.add_argument("--shape", default="124m", choices=PRESETS)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    (sheet,) = load_tasks([], [asked.items], limit=asked.count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(asked.shape, folder)
        # whole rows of the context, or the loop's last row would see less than ours
        words = " ".join(item.full_text for item in sheet.items).split()
        text = folder / "text.txt"
        text.write_text(" ".join(words[:3_000]))
        ids = load_gpt2_tokenizer().encode(text.read_text())
        text.write_text(load_gpt2_tokenizer().decode(ids[: len(ids) // 1_024 * 1_024]))
        for dtype in TORCH:
            bits(folder, dtype, text)
        tasks(folder, sheet, asked.batch, asked.beats)


if __name__ == "__main__":
    main()
