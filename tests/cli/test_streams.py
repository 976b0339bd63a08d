"""Every command works with closed, full and ASCII-only standard streams.

Output that only informs changes no exit code; a result that cannot be printed is an error.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from tests.small_models import with_train

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.cli import COMMANDS
from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.model.hf_io import load_model
from gnano.model.lora import add_lora, save_adapter
from gnano.train.trainer import train

# each command runs in a fork of one process that has imported what is slow to import
DRIVER = """
import json, os, signal, sys, threading, time
from gnano.utils.terminal import prepare_streams
prepare_streams()  # as main does it, before anything is loaded
import gnano.cli.args, gnano.chat.repl, gnano.evals.runner, gnano.export.formats
import gnano.reporting.description, gnano.reporting.run_report
from gnano.cli import main
def stop_server():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # it is not ready
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
codes = {}
for name, arguments in json.loads(sys.argv[1]).items():
    if (child := os.fork()) == 0:
        if name == "serve":
            threading.Thread(target=stop_server, daemon=True).start()
        try:
            main(arguments)
        except SystemExit as error:
            code = error.code or 0
        try:  # what Python does at the end
            sys.stdout.flush(), sys.stderr.flush()
        except OSError:
            code = 120
        os._exit(code)
    codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
with open(sys.argv[2], "w") as file:
    json.dump(codes, file)
"""


@pytest.fixture(scope="module")
def workdir(
    recipe: Recipe, sft_recipe: Recipe, dpo_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a run, an adapter for it, recipes, and a text."""
    folder = tmp_path_factory.mktemp("streams")
    train(with_train(recipe, steps=2, save_every=2), folder / "run")
    model = load_model(find_checkpoint(folder / "run"))
    add_lora(model, LoraConfig(rank=2))
    adapter = dict(model.named_parameters())
    save_adapter(adapter, LoraConfig(rank=2), str(folder / "run"), folder / "adapter")
    data = replace(recipe.pretraining_data, workers=1)
    recipes = {
        "pretrain": with_train(recipe, steps=2),
        "prepare": replace(recipe, data=replace(data, folder="data")),
        "sft": replace(sft_recipe, data=replace(sft_recipe.tuning_data, epochs=1)),
        "dpo": replace(dpo_recipe, data=replace(dpo_recipe.tuning_data, epochs=1)),
    }
    for name, one in recipes.items():
        (folder / f"{name}.toml").write_text(tomli_w.dumps(asdict(one)))
    (folder / "text.txt").write_text("the café over the river " * 40, encoding="utf-8")
    return folder


def commands(workdir: Path, recipe: Recipe, base: Path) -> dict[str, list[Any]]:
    """Return the arguments of every command, for some in a second variant."""
    run = workdir / "run"
    evaluated = ["--tasks", "none", "--text", workdir / "text.txt"]
    tuned = ["--from", base, "--out"]
    return {
        "demo": ["--questions", "-1"],
        "doctor": ["--device", "cuda:99"],
        "prepare": [workdir / "prepare.toml"],
        "data": ["show", recipe.pretraining_data.folder, "0", "--context", "32"],
        "data verify": ["verify", recipe.pretraining_data.folder],
        "tokenizer": ["show", run, "café 🌍"],
        "plan": ["1b"],
        "pretrain": [workdir / "pretrain.toml", "--out", "pretrained"],
        "sft": [workdir / "sft.toml", *tuned, "tuned", "--answers", "1", "--answer-tokens", "2"],
        "dpo": [workdir / "dpo.toml", *tuned, "preferred"],
        "eval": [run, *evaluated, "--out", "evaluation.json"],
        "compare": [run, *evaluated],
        "chat": [base, "--prompt", "Hi", "-n", "3", "--format", "plain"],
        "chat stdin": [base, "-n", "3"],
        "serve": [run, "--port", "0", "--threads", "1"],
        "generate": [run, "café 🌍", "-n", "3"],
        "generate several": [run, "a", "b", "-n", "3"],
        "generate stdin": [run, "-n", "3"],
        "bench": [run, "--texts", "1", "--prompt", "4", "--tokens", "2"],
        "smoke": [base, "-n", "16", "--temperatures", "1"],
        "info": ["1b"],
        "info verify": [run, "--verify"],
        "runs": [workdir],
        "weights": [run, "weights"],
        "export": [run, "--to", "safetensors", "--out", "run.safetensors"],
        "import": [find_checkpoint(run), "--out", "imported"],
        "publish": [run, "me/model", "--dry-run", "--out", "published"],
        "merge": [run, workdir / "adapter", "merged"],
    }


USUAL_CODES = {"demo": 2, "doctor": 2, "smoke": 1, "generate stdin": 2}  # stdin is empty; others: 0


def run_all(arguments: dict[str, list[Any]], where: Path, streams: str) -> dict[str, int]:
    """Return the exit codes; streams that are not redirected go to the files out and err."""
    shell = f'exec "$0" -c "$1" "$2" "$3" </dev/null >out 2>err {streams}'
    named = {name: [name.split()[0], *map(str, options)] for name, options in arguments.items()}
    environment = {**os.environ, "PYTHONIOENCODING": "ascii" if "ascii" in streams else "utf-8"}
    command = ["bash", "-c", shell, sys.executable, DRIVER, json.dumps(named), "codes.json"]
    done = subprocess.run(command, cwd=where, env=environment, check=False)
    assert done.returncode in (0, 120), (where / "err").read_text()
    assert "Traceback" not in (where / "err").read_text("utf-8", "replace")
    codes: dict[str, int] = json.loads((where / "codes.json").read_text())
    return codes


CLOSED = "<&- >&- 2>&-"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("streams", "print_code"),
    [(CLOSED, None), ("2>/dev/full # ascii", None), (">/dev/full", 2)],
)
def test_every_command_survives_broken_streams(
    workdir, recipe, base, tmp_path, streams, print_code
):
    arguments = commands(workdir, recipe, base)
    assert {name.split()[0] for name in arguments} == set(COMMANDS)
    if streams != CLOSED:  # the slow ones, which print like pretrain, run once
        del arguments["sft"], arguments["dpo"]
    codes = run_all(arguments, tmp_path, streams)
    for name in arguments:
        expected = USUAL_CODES.get(name, 0)
        prints = COMMANDS[name.split()[0]].get("prints")
        if print_code and prints and name != "chat stdin":
            expected = print_code
        assert codes[name] == expected, (name, (tmp_path / "err").read_text("utf-8", "replace"))
    written = {"data/manifest.json", "pretrained/report.html", "weights", "run.safetensors"}
    written |= {"imported", "published/README.md", "merged", "evaluation.json"}
    runs = ["pretrained"]
    if streams == CLOSED:
        written |= {"tuned/answers.md", "tuned/report.html"}
        runs += ["tuned", "preferred"]
    assert [name for name in written if not (tmp_path / name).exists()] == []
    for name in runs:
        assert find_checkpoint(tmp_path / name)
        assert '"finished"' in (tmp_path / name / "events.jsonl").read_text()
    if "ascii" in streams:
        output = (tmp_path / "out").read_text("utf-8")
        assert (
            "\\u2500 2 of 2 " in output
            and "1,050,002,688" in output
            and "\\u2500 document " in output
        )
