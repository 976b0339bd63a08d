"""Cost of FP8 in quality: pairs of training runs that differ only in precision.

    python benchmarks/fp8_quality.py [RECIPE [STEPS [PEAK]]]        (demo, 500, the recipe's)

The same weights and the same batches in the same order are trained once in bf16 and once with every
linear layer of the blocks in FP8, including the small ones that a real run keeps in bf16. A second
pair uses another order of the data. The difference between two orders in one precision is noise,
with which the cost of FP8 is compared.

The demo's text is prepared in a temporary folder; another recipe's data must be prepared. A CPU
multiplies the same 8-bit numbers as a GPU, but accumulates in fp32 everywhere, where a GPU's
forward pass keeps about 14 bits of a sum.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from gnano.config.recipe import Recipe, load_recipe
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.model.fp8 import convert_to_fp8, fp8_unsupported_reason
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.evaluator import HeldoutText

LAST_STEPS = 100  # final steps whose mean loss is reported


def run(
    recipe: Recipe, fp8: bool, order: int, steps: int, device: torch.device
) -> dict[str, float]:
    """Train; return the final held-out bits per byte and the mean loss of the last steps."""
    settings, data, length = recipe.train, recipe.pretraining_data, recipe.model.block_size
    corpus = TokenizedCorpus(Path(data.folder))
    batches = PackedDataset(
        corpus, data.weights, order, length, data.packing, data.document_attention_mask
    )
    torch.manual_seed(settings.seed)
    model = GPT.from_config(recipe.model).to(device)
    model.compute_dtype = torch.bfloat16
    layers = convert_to_fp8(model, min_intensity=0) if fp8 else []
    for block in model.model.layers:
        block.compile()
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    gains = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        fused=True,
    )
    schedule = replace(settings.schedule, warmup=steps // 4)
    rows = settings.tokens_per_step // length
    losses, started = [], time.monotonic()
    for step in range(steps):
        inputs, targets, segments = batches.read_batch(range(step * rows, (step + 1) * rows))
        segments = None if segments is None else segments.to(device)
        loss = model.loss(inputs.to(device), targets.to(device), document_ids_BT=segments)
        loss = loss / settings.tokens_per_step
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
    size, world = settings.micro_batch_size, DistContext(device)
    result = HeldoutText(corpus, data.weights, length, size, settings.eval_tokens, world).evaluate(
        model
    )
    assert result is not None
    bits = result.objective
    last = torch.stack(losses[-LAST_STEPS:]).tolist()
    print(
        f"  {'FP8' if fp8 else 'bf16':<4} order {order}: {bits:.4f} held-out bits per byte, "
        f"{statistics.fmean(last):.4f} nats per token over the last {len(last)} steps "
        f"({len(layers)} layers in FP8, {time.monotonic() - started:.0f} s)",
        flush=True,
    )
    return {"bits": bits, "loss": statistics.fmean(last)}


def main() -> None:
    recipe = load_recipe(sys.argv[1] if len(sys.argv) > 1 else "demo")
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    if len(sys.argv) > 3:
        schedule = replace(recipe.train.schedule, peak=float(sys.argv[3]))
        recipe = replace(recipe, train=replace(recipe.train, schedule=schedule))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and (reason := fp8_unsupported_reason(device)):
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as folder:
        if recipe.pretraining_data.folder == "data/demo":
            recipe = replace(recipe, data=replace(recipe.pretraining_data, folder=f"{folder}/demo"))
            prepare(recipe.pretraining_data)
        print(
            f"{recipe.model.n_layer} layers of {recipe.model.n_embd} on {device}, "
            f"{steps:,} steps of {recipe.train.tokens_per_step:,} tokens, "
            f"peak {recipe.train.schedule.peak:g}",
            flush=True,
        )
        pairs = [
            [run(recipe, fp8, order, steps, device) for fp8 in (False, True)]
            for order in (recipe.pretraining_data.seed, recipe.pretraining_data.seed + 1)
        ]
    units = {"bits": "held-out bits per byte", "loss": "nats per token in training"}
    for key, unit in units.items():
        costs = [fp8[key] - bf16[key] for bf16, fp8 in pairs]
        noise = [second[key] - first[key] for first, second in zip(*pairs, strict=True)]
        print(
            f"  {unit}: FP8 costs {costs[0]:+.4f} and {costs[1]:+.4f}; "
            f"another order of the data {noise[0]:+.4f} in bf16, {noise[1]:+.4f} in FP8"
        )


if __name__ == "__main__":
    main()
