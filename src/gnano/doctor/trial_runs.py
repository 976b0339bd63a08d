"""The self-test of training: short runs of a small model, in processes of their own.

    recipe ─▶ 20 steps ─────────────────────────────▶ losses = those of a CPU, stored here
           ─▶ 14 steps, SIGKILL ─▶ 10 … 20 steps ───▶ the same weights, on a CPU bit for bit
           ─▶ 20 steps on two ranks ────────────────▶ the same losses

Text, tokenizer and initial weights do not depend on versions. The losses in fp32 were the same to
1e-5 under PyTorch 2.11 and 2.13, one and two threads, and all instruction sets that it has code
for; in bf16 they differed by up to 0.0015, compiled by 0.003.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray

from gnano.checkpoint.run_checkpoints import find_checkpoint, list_checkpoints
from gnano.config.data_config import DataConfig, SourceConfig
from gnano.config.model_config import ModelConfig
from gnano.config.recipe import Recipe, load_recipe
from gnano.config.train_config import LRSchedule, TrainConfig
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.doctor.check import Check, Part
from gnano.doctor.numeric_tests import ADVICE, compile_options, device_precisions, fill_weights
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.train.lineage import hash_weights
from gnano.train.trainer import train
from gnano.utils.files import dump_json
from gnano.utils.jsonl_log import EVENTS_FILE, read_metrics

# of a CPU in fp32; after a change that is meant to change them (FOLDER is new and empty):
#   python -c 'from gnano.doctor.trial_runs import *; prepare_trial(Path("FOLDER"), "cpu"); \
#              print(read_losses(run_trial(Path("FOLDER"), "fp32")))'
LOSSES = (
    *(5.89958, 5.62622, 5.20844, 4.81617, 4.46352, 4.21308, 3.96207, 3.72966, 3.63799, 3.3424),
    *(3.19673, 3.07442, 2.94784, 2.9026, 2.74606, 2.74577, 2.74347, 2.63786, 2.64754, 2.59035),
)
TOLERANCES = {"fp32": 0.001, "bf16": 0.01, "fp16": 0.01}  # nats, of each step
BASE = "base"  # folder of the initial model
SAVE_EVERY, KILL_AFTER = 10, 14  # steps
TIMEOUT = 300.0  # seconds for a run, with its compilation
WORDS = (
    "the a one every river stone bird house winter road name letter song light sees finds keeps "
    "leaves under over near before"
).split()
SHAPE = ModelConfig(
    vocab_size=300, n_embd=64, n_layer=2, n_head=4, n_kv_head=2, ffn_hidden=128, block_size=64
)
SCRIPT = "import sys; from gnano.doctor.trial_runs import run_rank; run_rank(*sys.argv[1:])"


def trial_parts(device: torch.device, folder: Path, quick: bool) -> list[Part]:
    """Return the tests of training; `prepare_trial` has filled the folder."""
    compiled = compile_options(device, quick)[-1]
    parts: list[Part] = []
    for precision in (name for name in device_precisions(device) if name in TOLERANCES):
        changes = {"precision": precision, "compile": "yes" if compiled else "no"}
        if precision == "fp32":  # the reference of the next test
            changes["compile"] = "no"
        name = f"training {precision}{' compiled' if changes['compile'] == 'yes' else ''}"
        parts.append((name, partial(_test_losses, name, folder, precision, changes)))
    parts.append(("kill and resume", partial(_test_resume, folder, device.type == "cpu")))
    if device.type == "cpu" or torch.cuda.device_count() > 1:
        for parallel in ("ddp",) if quick else ("ddp", "fsdp"):
            changes = {"parallel": parallel, "device": device.type}
            name = f"training on 2 ranks, {parallel}"
            parts.append((name, partial(_test_losses, name, folder, parallel, changes, ranks=2)))
    return parts


def prepare_trial(folder: Path, device: str) -> tuple[()]:
    """Write data, a base with tokenizer and weights, and the recipe of the runs."""
    generator = np.random.RandomState(0)  # its draws are the same in all versions
    texts = (" ".join(generator.choice(WORDS, generator.randint(20, 80))) for _ in range(300))
    lines = "\n".join(dump_json({"text": text}) for text in texts)
    (folder / "texts.jsonl").write_text(lines, "utf-8")
    data = DataConfig(
        folder=str(folder / "data"),
        tokenizer=f"bpe-{SHAPE.vocab_size}",
        heldout_fraction=0.02,
        workers=1,
        sources={"words": SourceConfig(files=(str(folder / "texts.jsonl"),))},
    )
    prepare(data)
    tokenizer, base = TokenizedCorpus(folder / "data").tokenizer, folder / BASE
    tokenizer.save(base)
    save_model(fill_weights(GPT.from_config(SHAPE)), base, tokenizer.end_of_text_id)
    config = TrainConfig(
        steps=len(LOSSES),
        tokens_per_step=2_048,
        micro_batch_size=8,
        precision="fp32",
        device=device,
        threads=1,
        compile="no",
        init_from=str(base),
        eval_every=0,
        save_every=SAVE_EVERY,
        schedule=LRSchedule(peak=3e-3, warmup=4),
    )
    recipe = asdict(Recipe(model=SHAPE, data=data, train=config))
    (folder / "recipe.toml").write_text(tomli_w.dumps(recipe), "utf-8")
    return ()


def run_rank(recipe: str, run: str, kill_after: str) -> None:
    """Train in this process; after a step from 1, wait for a checkpoint and send it SIGKILL."""

    def kill(row: dict[str, Any]) -> None:
        while row["step"] == int(kill_after):
            if list_checkpoints(Path(run)):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.01)

    train(load_recipe(recipe), Path(run), kill)


def run_trial(folder: Path, name: str, ranks: int = 1, kill_after: int = 0, **changes: Any) -> Path:
    """Run the recipe, with changes of `[train]`, in new processes; return the folder of the run.

    Raises OSError, with the last line that they print, if they end with an error or not in time.
    """
    recipe = load_recipe(str(folder / "recipe.toml"))
    recipe = replace(recipe, train=replace(recipe.train, **changes))
    file, run, output = (folder / f"{name}{suffix}" for suffix in (".toml", "", ".log"))
    file.write_text(tomli_w.dumps(asdict(recipe)), "utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    deadline, processes = time.monotonic() + TIMEOUT, []
    try:
        with output.open("wb") as log:
            for rank in range(ranks):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
                command = [sys.executable, "-c", SCRIPT, str(file), str(run), str(kill_after)]
                environment = {**os.environ, **address, **own}
                process = subprocess.Popen(
                    command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,  # Ctrl-C reaches this process, which kills the others
                )  # fmt: skip
                processes.append(process)
        codes = {one.wait(max(deadline - time.monotonic(), 0.1)) for one in processes}
        ended = f"exit codes {codes}"
    except subprocess.TimeoutExpired:
        codes, ended = set(), f"no end in {TIMEOUT:g} s"
    finally:
        for process in processes:
            with suppress(ProcessLookupError):  # and its compiler's workers
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if codes != {-signal.SIGKILL if kill_after else 0}:
        last = output.read_text("utf-8", "replace").strip().rpartition("\n")[2]
        raise OSError(f"{ended}; {last}")
    return run


def read_losses(run: Path) -> NDArray[np.float64]:
    """Return the loss of each step, NaN where it is not finite; OSError if a step is missing."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
    if len(rows) != len(LOSSES):
        raise OSError(f"{len(rows)} of {len(LOSSES)} steps were logged")
    return np.array([row["loss"] for row in rows], dtype=float)


def _test_losses(
    name: str, folder: Path, run: str, changes: dict[str, Any], ranks: int = 1
) -> Iterator[Check]:
    losses = read_losses(run_trial(folder, run, ranks, **changes))
    text = f"loss of {len(losses)} steps, from that of a CPU at most"
    limit = TOLERANCES[changes.get("precision", "fp32")]
    yield Check.within(limit, float(abs(losses - LOSSES).max()), name, text, ADVICE)


def _test_resume(folder: Path, is_exact: bool) -> Iterator[Check]:
    run_trial(folder, "killed", kill_after=KILL_AFTER)
    losses = read_losses(run_trial(folder, "killed"))
    events = (folder / "killed" / EVENTS_FILE).read_text("utf-8").splitlines()
    starts = [row["step"] for row in map(json.loads, events) if row["event"] == "started"]
    name, text = "kill and resume", f"killed after step {KILL_AFTER}, resumed from {starts[-1]}"
    if starts != [0, SAVE_EVERY]:
        yield Check(name, "problem", f"started from the steps {starts}", ADVICE)
    elif is_exact:
        one, other = (hash_weights(find_checkpoint(folder / run)) for run in ("fp32", "killed"))
        found = f"{text}: weights {'the same, bit for bit' if one == other else 'differ'}"
        yield Check.ok_unless(one != other, name, found, ADVICE, "problem")
    else:
        difference = float(abs(losses - LOSSES).max())
        text += ": loss from that of a CPU at most"
        yield Check.within(TOLERANCES["fp32"], difference, name, text, ADVICE)
