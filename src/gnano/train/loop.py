"""The one loop: batches in, checkpoints out.

    sample numbers ─▶ batches ─▶ loss / tokens that count ─▶ backward, over all micro-batches
                                                               │
              checkpoint, metrics, held-out loss ◀── step ◀── clip

Everything a step needs follows from its number: the samples, the learning rate. So a run
that was killed continues from its last checkpoint and gives the same weights, bit for bit.
"""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gnano.data import Batches, Corpus, samples_of
from gnano.model import GPT, IGNORE
from gnano.train.checkpoint import checkpoints, keep_newest, load_checkpoint, save_checkpoint
from gnano.train.heldout import Heldout
from gnano.train.metrics import MetricsLog
from gnano.train.optimizer import adamw
from gnano.train.precision import DTYPES
from gnano.train.recipe import Recipe
from gnano.train.settle import settle
from gnano.train.stopping import StopRequest
from gnano.train.waiting import Say, wait_for

Watch = Callable[[dict[str, Any]], None]  # sees the figures of every step


@dataclass(frozen=True)
class RunResult:
    run: Path
    checkpoint: Path
    step: int  # steps done
    steps: int  # steps in all
    began: int  # steps that were done when this call began
    stopped_by: signal.Signals | None  # the signal that ended it early

    @property
    def finished(self) -> bool:
        return self.step == self.steps


def silent(text: str, waiting: bool = False) -> None:
    """Says nothing."""


def train(recipe: Recipe, run: Path, watch: Watch = lambda _: None, say: Say = silent) -> RunResult:
    """Run the recipe in the folder `run`, or go on with it; returns when done or stopped.

    Raises ValueError for what does not fit together, before anything is computed.
    """
    corpus = Corpus(Path(recipe.data.folder))
    recipe = settle(recipe, run, corpus)
    settings, length = recipe.train, recipe.model.block_size
    data = recipe.data
    batches = Batches(corpus, data.weights, data.seed, length, data.packing, data.inside_documents)
    heldout = Heldout(corpus, data.weights, length, settings.micro_batch)
    torch.manual_seed(settings.seed)
    model = GPT.from_config(recipe.model).to(settings.device)
    model.compute_dtype = DTYPES[settings.precision]
    optimizer = adamw(model, settings.optimizer)

    step, seconds = 0, 0.0
    if found := checkpoints(run):
        state = load_checkpoint(found[-1], model, optimizer)
        step, seconds = state["step"], state["seconds"]
        if step >= settings.steps:
            return RunResult(run, found[-1], step, settings.steps, step, None)
    began, started = step, time.monotonic() - seconds

    def save() -> Path:
        state = {"seconds": time.monotonic() - started}
        folder = save_checkpoint(run, step, model, optimizer, corpus.tokenizer, state)
        keep_newest(run, settings.keep)
        return folder

    log = MetricsLog(run)
    with StopRequest() as stop:
        wait_for(partial(heldout.lacking, settings.eval_tokens), stop, say)
        say(f"{corpus.folder}: {batches.waste()}")
        while step < settings.steps and stop.received is None:
            per_step = settings.tokens_per_step // length
            samples = range(step * per_step, (step + 1) * per_step)
            wait_for(partial(batches.lacking, samples), stop, say)
            if stop.received is not None:
                break
            figures = _step_and_figures(model, optimizer, batches, recipe, step)
            step += 1
            last = step == settings.steps
            if heldout and (last or (settings.eval_every and step % settings.eval_every == 0)):
                tokens = None if last else settings.eval_tokens
                figures["heldout"] = heldout.loss(model, tokens).as_dict()
            figures["seconds"] = round(time.monotonic() - started, 3)
            if last:
                figures["final"] = True
            log.write(**figures)
            watch(figures)
            if step % settings.save_every == 0 and not last:
                save()
        checkpoint = save()
    log.close()
    return RunResult(run, checkpoint, step, settings.steps, began, stop.received)


def _step_and_figures(
    model: GPT, optimizer: torch.optim.Optimizer, batches: Batches, recipe: Recipe, step: int
) -> dict[str, Any]:
    settings = recipe.train
    started = time.perf_counter()
    lr = settings.schedule(step, settings.steps)
    loss, norm = train_step(model, optimizer, batches, recipe, step, lr)
    if not math.isfinite(loss):
        raise ValueError(
            f"The loss became {loss} in step {step + 1}; lower "
            f"train.schedule.peak (now {settings.schedule.peak:g}) or check the data."
        )
    speed = settings.tokens_per_step / (time.perf_counter() - started)
    return {
        "step": step + 1,
        "tokens": (step + 1) * settings.tokens_per_step,
        "loss": round(loss, 5),
        "grad_norm": round(norm, 5),
        "lr": lr,
        "tokens_per_s": round(speed, 1),
    }


def train_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    recipe: Recipe,
    step: int,
    lr: float,
) -> tuple[float, float]:
    """One optimizer step; returns the mean loss in nats a token and the gradient's norm.

    The loss is a sum over tokens divided by the number of tokens that count in the whole
    step, so neither the size of a micro-batch nor a half-empty one changes its weight.
    """
    settings, length = recipe.train, batches.length
    micros = []
    for number in range(settings.accumulation(length)):
        samples = samples_of(
            step,
            number,
            rank=0,
            per_step=settings.tokens_per_step // length,
            micro_batch=settings.micro_batch,
            ranks=1,
        )
        micros.append(batches.batch(samples))
    counted = sum(int((micro.targets_BT != IGNORE).sum()) for micro in micros)
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    for ids_BT, targets_BT, segments_BT in micros:
        if segments_BT is not None:
            segments_BT = segments_BT.to(device)
        loss = model.loss(ids_BT.to(device), targets_BT.to(device), segments_BT=segments_BT)
        loss = loss / counted
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total.item(), norm.item()
