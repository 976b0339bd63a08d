"""Speed of evaluation, compared with lm-evaluation-harness on the same items and batch size.

    python benchmarks/evaluating.py hellaswag_val.jsonl

The model has random weights of a preset shape and GPT-2's vocabulary. Encoding the items is part of
the time, loading the model is not. Then bits per byte of a text, compared with a plain transformers
loop.
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
from gnano.evals.eval_tasks import TaskItems, load_tasks
from gnano.evals.harness import to_lm_eval_task
from gnano.evals.loglikelihood import compute_loglikelihoods
from gnano.evals.model_adapter import EvalModel, load_eval_model
from gnano.evals.result_store import TaskScore
from gnano.evals.runner import measure_file, score_task
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

TORCH_DTYPES: dict[InferenceDtype, str] = {"fp32": "float32", "bf16": "bfloat16"}


def write_model(shape: str, folder: Path) -> None:
    """Write a random model; its matrices are tripled, so that answers differ clearly."""
    torch.manual_seed(0)
    tokenizer = load_gpt2_tokenizer()
    model = GPT.from_config(replace(PRESETS[shape], vocab_size=tokenizer.vocab_size))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    tokenizer.save(folder, model.config.block_size)
    save_model(model, folder, tokenizer.end_of_text_id)


def run_gnano(model: EvalModel, task: TaskItems, batch_size: int) -> tuple[float, TaskScore]:
    started_at = time.perf_counter()
    items = model.encoder.encode_items(task.items)
    score = score_task(task, compute_loglikelihoods(model.scorer, items, batch_size))
    return time.perf_counter() - started_at, score


def run_harness(model: HFLM, task: TaskItems, batch_size: int) -> tuple[float, dict[str, Any]]:
    model.batch_size_per_gpu = batch_size
    started_at = time.perf_counter()
    output = lm_eval.simple_evaluate(
        model=model, tasks=[to_lm_eval_task(task)], bootstrap_iters=100
    )
    return time.perf_counter() - started_at, output["results"][task.task]


def compare_tasks(folder: Path, task: TaskItems, batch_size: int, rounds: int) -> None:
    for dtype in TORCH_DTYPES:
        model = load_eval_model(folder, LoadConfig(dtype=dtype, device="cpu"))
        harness_model = HFLM(
            str(folder),
            dtype=TORCH_DTYPES[dtype],
            device="cpu",
            batch_size=batch_size,
            add_bos_token=True,
        )
        pairs = []
        for _ in range(rounds):
            seconds, score = run_gnano(model, task, batch_size)
            harness_seconds, result = run_harness(harness_model, task, batch_size)
            pairs.append((len(task.items) / seconds, len(task.items) / harness_seconds))
        speed, harness_speed = (median(pair[i] for pair in pairs) for i in (0, 1))
        ratios = [a / b for a, b in pairs]
        assert score.acc_norm is not None
        print(
            f"{dtype}  gnano {speed:6.2f} items/s   harness {harness_speed:6.2f}   "
            f"{median(ratios):5.2f} × ({min(ratios):.2f} to {max(ratios):.2f})   "
            f"acc {score.acc.value:.3f} and {result['acc,none']:.3f}, "
            f"acc_norm {score.acc_norm.value:.3f} and {result['acc_norm,none']:.3f}",
            flush=True,
        )


@torch.inference_mode()
def compare_bits_per_byte(folder: Path, dtype: InferenceDtype, text: Path) -> None:
    model = load_eval_model(folder, LoadConfig(dtype=dtype, device="cpu"))
    started_at = time.perf_counter()
    result = measure_file(model, text)
    seconds = time.perf_counter() - started_at
    llama = LlamaForCausalLM.from_pretrained(folder, dtype=TORCH_DTYPES[dtype])
    assert model.tokenizer is not None
    length = llama.config.max_position_embeddings
    started_at = time.perf_counter()
    ids = [model.tokenizer.end_of_text_id, *model.tokenizer.encode(text.read_text())]
    nats = 0.0
    for start in range(0, len(ids) - 1, length):
        part = torch.tensor([ids[start : start + length + 1]])
        log_probs = llama(part[:, :-1]).logits[0].float().log_softmax(-1)
        nats -= log_probs.gather(1, part[0, 1:, None]).double().sum().item()
    loop_seconds = time.perf_counter() - started_at
    expected = nats / math.log(2) / result.bytes
    print(
        f"{dtype}  bits per byte: gnano {result.bits_per_byte:.6f}, transformers {expected:.6f}, "
        f"in {seconds:.1f} s and {loop_seconds:.1f} s ({loop_seconds / seconds:.2f} ×)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("items", help="file of items, named after its task")
    parser.add_argument("--shape", default="124m", choices=PRESETS)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    (task,) = load_tasks([], [args.items], limit=args.count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(args.shape, folder)
        # full rows of the context: the loop's last row would have less context than gnano's
        words = " ".join(item.full_text for item in task.items).split()
        text = folder / "text.txt"
        text.write_text(" ".join(words[:3_000]))
        ids = load_gpt2_tokenizer().encode(text.read_text())
        text.write_text(load_gpt2_tokenizer().decode(ids[: len(ids) // 1_024 * 1_024]))
        for dtype in TORCH_DTYPES:
            compare_bits_per_byte(folder, dtype, text)
        compare_tasks(folder, task, args.batch, args.rounds)


if __name__ == "__main__":
    main()
