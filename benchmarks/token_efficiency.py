"""Steps that Muon needs for AdamW's loss, both tuned, on the same text in the same order.

    python benchmarks/token_efficiency.py CORPORA [--work FOLDER] [--steps 320]

CORPORA contains fineweb-edu-dedup, cosmopedia-v2 and starcoderdata/python as Parquet files. Shape
`10m` with a vocabulary of 4,096 is trained on them, mixed 40 : 25 : 35, in steps of 8 × 256 tokens,
with bf16 products where they are fast. No text is read twice.

AdamW runs over all steps with each of several peak learning rates and the reference recipe's cosine
to 10 %, and once with Muon's short warm-up and linear decay to 0. Muon runs over a share of the
steps with a correspondingly shorter schedule: a point within a longer run would be an unfair
comparison, because its learning rate has not decayed yet. The result is the final held-out loss in
bits per byte of the same 65,536 tokens.

Finished trials are stored in FOLDER and not repeated, so the benchmark can be interrupted.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.config.model_config import PRESETS
from gnano.config.train_config import LRSchedule, OptimizerConfig
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.model.transformer import GPT
from gnano.train.distributed.context import DistContext
from gnano.train.evaluator import HeldoutText
from gnano.train.optim.optimizer import Optimizer
from gnano.train.resolve import choose_precision
from gnano.train.train_step import COMPUTE_DTYPES

ROWS, LENGTH = 8, 256  # per step
FINAL_TOKENS, CURVE_TOKENS = 65_536, 8_192  # held-out tokens at the end and in between
EVAL_EVERY = 32  # steps


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A training run."""

    name: str
    steps: int
    optimizer: OptimizerConfig
    schedule: LRSchedule


@dataclass(frozen=True)
class Outcome:
    """The results of a trial."""

    bits_per_byte: float
    curve: list[tuple[int, float]]  # step, bits per byte of a few tokens
    seconds: float
    optimizer_seconds: float


def list_trials(steps: int) -> list[Trial]:
    adamw = [
        Trial(
            name=f"AdamW {peak:g}",
            steps=steps,
            optimizer=OptimizerConfig(),
            schedule=LRSchedule(peak=peak, warmup=steps // 10),
        )
        for peak in (1e-3, 2e-3, 4e-3)
    ]
    linear = LRSchedule(kind="linear", peak=2e-3, warmup=10, floor=0.0)
    adamw.append(replace(adamw[1], name="AdamW 0.002, Muon's schedule", schedule=linear))
    muon = [
        Trial(
            name=f"Muon {peak:g}",
            steps=round(share * steps),
            optimizer=OptimizerConfig(kind="muon"),
            schedule=LRSchedule(kind="linear", peak=peak, warmup=10, floor=0.0),
        )
        for share, peak in ((0.65, 6e-3), (0.40, 6e-3), (0.65, 3e-3), (0.65, 12e-3))
    ]
    return adamw + muon


def make_sources(corpora: Path) -> dict[str, SourceConfig]:
    folders = {
        "web": (0.40, "fineweb-edu-dedup", "text"),
        "synthetic": (0.25, "cosmopedia-v2", "text"),
        "code": (0.35, "starcoderdata/python", "content"),
    }
    return {
        name: SourceConfig(
            weight=weight, files=(str(corpora / folder / "*.parquet"),), column=column
        )
        for name, (weight, folder, column) in folders.items()
    }


class TrialRunner:
    """Runs trials on prepared text and stores their outcomes."""

    def __init__(self, corpora: Path, work: Path) -> None:
        config = DataConfig(
            folder=str(work / "data"),
            tokenizer="bpe-4096",
            workers=1,
            sources=make_sources(corpora),
        )
        prepare(config)
        corpus = TokenizedCorpus(work / "data")
        self.batches = PackedDataset(corpus, config.weights, 0, LENGTH)
        cpu = torch.device("cpu")
        self.heldout = {
            tokens: HeldoutText(corpus, config.weights, LENGTH, 16, tokens, DistContext(cpu))
            for tokens in (CURVE_TOKENS, FINAL_TOKENS)
        }
        self.dtype = COMPUTE_DTYPES[choose_precision(cpu)]
        self.log = work / "trials.jsonl"

    def run(self, trial: Trial) -> Outcome:
        key = json.loads(json.dumps(asdict(trial)))
        for row in self._stored_rows():
            if row["trial"] == key:
                return Outcome(**row["outcome"])
        outcome = self._train(trial)
        with self.log.open("a") as file:
            file.write(json.dumps({"trial": key, "outcome": asdict(outcome)}) + "\n")
        return outcome

    def _stored_rows(self) -> Iterator[dict[str, Any]]:
        if self.log.exists():
            yield from map(json.loads, self.log.read_text().splitlines())

    def _train(self, trial: Trial) -> Outcome:
        torch.manual_seed(0)
        model = GPT.from_config(PRESETS["10m"])
        model.compute_dtype = self.dtype
        optimizer = Optimizer(model, trial.optimizer)
        curve = []
        started, optimizer_seconds = time.perf_counter(), 0.0
        for step in range(trial.steps):
            x_BT, y_BT, _ = self.batches.read_batch(range(step * ROWS, (step + 1) * ROWS))
            loss = model.loss(x_BT, y_BT) / y_BT.numel()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.get_total_norm(
                [p.grad for p in model.parameters() if p.grad is not None]
            )
            before = time.perf_counter()
            lr, left = trial.schedule.lr_at(step, trial.steps), 1 - step / trial.steps
            optimizer.step(lr, left, grad_divisor=norm.clamp_min(1))
            optimizer.zero_grad()
            optimizer_seconds += time.perf_counter() - before
            if (step + 1) % EVAL_EVERY == 0 and step + 1 < trial.steps:
                curve.append((step + 1, round(self._evaluate(model, CURVE_TOKENS), 4)))
        seconds = time.perf_counter() - started
        end = round(self._evaluate(model, FINAL_TOKENS), 5)
        return Outcome(end, curve, round(seconds, 1), round(optimizer_seconds, 1))

    def _evaluate(self, model: GPT, tokens: int) -> float:
        result = self.heldout[tokens].evaluate(model, on_budget=True)
        assert result is not None
        return result.objective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--work", type=Path, default=Path("data/token-efficiency"))
    parser.add_argument("--steps", type=int, default=320)
    args = parser.parse_args()
    if not (args.corpora / "fineweb-edu-dedup").is_dir():
        parser.error(
            f"{args.corpora} contains no fineweb-edu-dedup; name the folder of the corpora."
        )
    runner = TrialRunner(args.corpora, args.work)
    print("| trial | steps | bits per byte | seconds | of which in the optimizer |")
    print("|---|---|---|---|---|")
    for trial in list_trials(args.steps):
        out = runner.run(trial)
        print(
            f"| {trial.name} | {trial.steps} | {out.bits_per_byte:.4f} | {out.seconds:.0f} | "
            f"{out.optimizer_seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
