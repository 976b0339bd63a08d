"""How many steps does Muon need for AdamW's loss? Both tuned, on the same text in the same order.

    python benchmarks/token_efficiency.py CORPORA [--work FOLDER] [--steps 320]

CORPORA holds fineweb-edu-dedup, cosmopedia-v2 and starcoderdata/python, as Parquet files. Shape
`10m` with a vocabulary of 4,096 trained on them, mixed 40 : 25 : 35; steps of 8 × 256 tokens; bf16
products where they are worth it. No text is read twice.

AdamW runs over all the steps, with each of several peak learning rates; it has the reference
recipe's cosine to 10 %, and once Muon's short warm-up and straight line to 0. Muon runs over a
share of the steps, and its schedule is that much shorter: a point on the way of a longer run would
be no fair comparison, because its learning rate has not fallen yet. What counts is the held-out
loss at the end, in bits per byte of the same 65,536 tokens.

Trials that FOLDER knows are not run again: it may be stopped, and go on.
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
from gnano.data.packed_dataset import PackedDataset
from gnano.data.prepare.pipeline import prepare
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.model.transformer import GPT
from gnano.train.heldout_loss import HeldoutSet
from gnano.train.optim.builder import Optimizer
from gnano.train.precision import COMPUTE_DTYPES, choose_precision

ROWS, LENGTH = 8, 256  # of a step
HELDOUT, GLANCE = 65_536, 8_192  # tokens, at the end and every EVERY steps
EVERY = 32


@dataclass(frozen=True, kw_only=True)
class Trial:
    name: str
    steps: int
    optimizer: OptimizerConfig
    schedule: LRSchedule


@dataclass(frozen=True)
class Outcome:
    bits_per_byte: float
    curve: list[tuple[int, float]]  # step, bits per byte at a glance
    seconds: float
    in_optimizer: float  # seconds of these


def trials(steps: int) -> list[Trial]:
    adamw = [
        Trial(
            name=f"AdamW {peak:g}",
            steps=steps,
            optimizer=OptimizerConfig(),
            schedule=LRSchedule(peak=peak, warmup=steps // 10),
        )
        for peak in (1e-3, 2e-3, 4e-3)
    ]
    straight = LRSchedule(kind="linear", peak=2e-3, warmup=10, floor=0.0)
    adamw.append(replace(adamw[1], name="AdamW 0.002, Muon's schedule", schedule=straight))
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


def data(corpora: Path) -> dict[str, SourceConfig]:
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


class Laboratory:
    """The text and what is measured on it."""

    def __init__(self, corpora: Path, work: Path) -> None:
        config = DataConfig(
            folder=str(work / "data"), tokenizer="bpe-4096", workers=1, sources=data(corpora)
        )
        prepare(config)
        corpus = TokenizedCorpus(work / "data")
        self.batches = PackedDataset(corpus, config.weights, 0, LENGTH)
        self.heldout = HeldoutSet(corpus, config.weights, LENGTH, batch_size=16)
        self.dtype = COMPUTE_DTYPES[choose_precision(torch.device("cpu"))]
        self.log = work / "trials.jsonl"

    def outcome(self, trial: Trial) -> Outcome:
        key = json.loads(json.dumps(asdict(trial)))
        for row in self._known():
            if row["trial"] == key:
                return Outcome(**row["outcome"])
        outcome = self._run(trial)
        with self.log.open("a") as file:
            file.write(json.dumps({"trial": key, "outcome": asdict(outcome)}) + "\n")
        return outcome

    def _known(self) -> Iterator[dict[str, Any]]:
        if self.log.exists():
            yield from map(json.loads, self.log.read_text().splitlines())

    def _run(self, trial: Trial) -> Outcome:
        torch.manual_seed(0)
        model = GPT.from_config(PRESETS["10m"])
        model.compute_dtype = self.dtype
        optimizer = Optimizer(model, trial.optimizer)
        curve = []
        started, in_optimizer = time.perf_counter(), 0.0
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
            in_optimizer += time.perf_counter() - before
            if (step + 1) % EVERY == 0 and step + 1 < trial.steps:
                curve.append(
                    (step + 1, round(self.heldout.evaluate(model, GLANCE).bits_per_byte, 4))
                )
        seconds = time.perf_counter() - started
        end = round(self.heldout.evaluate(model, HELDOUT).bits_per_byte, 5)
        return Outcome(end, curve, round(seconds, 1), round(in_optimizer, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--work", type=Path, default=Path("data/token-efficiency"))
    parser.add_argument("--steps", type=int, default=320)
    arguments = parser.parse_args()
    if not (arguments.corpora / "fineweb-edu-dedup").is_dir():
        parser.error(f"{arguments.corpora} holds no fineweb-edu-dedup; name the corpora's folder.")
    laboratory = Laboratory(arguments.corpora, arguments.work)
    print("| trial | steps | bits per byte | seconds | of these in the optimizer |")
    print("|---|---|---|---|---|")
    for trial in trials(arguments.steps):
        out = laboratory.outcome(trial)
        print(
            f"| {trial.name} | {trial.steps} | {out.bits_per_byte:.4f} | {out.seconds:.0f} | "
            f"{out.in_optimizer:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
