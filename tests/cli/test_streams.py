"""Every command under every state of its standard streams: closed, full, without a reader, ASCII.

What only informs changes no exit code; a product that cannot be printed is a failure.
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

from gnano.checkpoint.format import find_checkpoint
from gnano.cli import COMMANDS, OUTPUT_COMMANDS
from gnano.config.model_config import LoraConfig
from gnano.config.recipe import Recipe
from gnano.model.hf_io import load_model
from gnano.model.lora import add_lora
from gnano.model.peft_io import save_adapter
from gnano.train.trainer import train

# each command in a copy of one process that has loaded what is slow to load
DRIVER = """
import json, os, sys
from gnano.utils.streams import prepare_streams
prepare_streams()  # as main does it, before anything is loaded
import gnano.cli.args, gnano.chat.launch, gnano.evals.runner, gnano.export.formats, gnano.reporting.finetune
from gnano.cli import main
from gnano.chat.conversation import Session
from gnano.reporting.description import describe
codes = {}
for name, arguments in json.loads(sys.argv[1]).items():
    if (child := os.fork()) == 0:
        try:
            main(arguments)
        except SystemExit as left:
            code = left.code or 0
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
def place(
    recipe: Recipe, tuning: Recipe, preferring: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run, an adapter to it, recipes, and a text."""
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
        "sft": replace(tuning, data=replace(tuning.tuning_data, epochs=1)),
        "dpo": replace(preferring, data=replace(preferring.tuning_data, epochs=1)),
    }
    for name, one in recipes.items():
        (folder / f"{name}.toml").write_text(tomli_w.dumps(asdict(one)))
    (folder / "text.txt").write_text("the café over the river " * 40, encoding="utf-8")
    return folder


def commands(place: Path, recipe: Recipe, base: Path) -> dict[str, list[Any]]:
    """Arguments of every command; of some in a second way."""
    run = place / "run"
    asked = ["--tasks", "none", "--text", place / "text.txt"]
    tuned = ["--from", base, "--out"]
    return {
        "demo": ["--questions", "-1"],
        "prepare": [place / "prepare.toml"],
        "data": ["show", recipe.pretraining_data.folder, "0", "--context", "32"],
        "data verify": ["verify", recipe.pretraining_data.folder],
        "tokenizer": ["show", run, "café 🌍"],
        "plan": ["1b"],
        "pretrain": [place / "pretrain.toml", "--out", "pretrained"],
        "sft": [place / "sft.toml", *tuned, "tuned", "--answers", "1", "--answer-tokens", "2"],
        "dpo": [place / "dpo.toml", *tuned, "preferred"],
        "eval": [run, *asked, "--out", "evaluation.json"],
        "compare": [run, *asked],
        "chat": [base, "--prompt", "Hi", "-n", "3", "--format", "plain"],
        "chat what comes": [base, "-n", "3"],
        "generate": [run, "café 🌍", "-n", "3"],
        "generate several": [run, "a", "b", "-n", "3"],
        "generate what comes": [run, "-n", "3"],
        "bench": [run, "--texts", "1", "--prompt", "4", "--tokens", "2"],
        "smoke": [base, "-n", "16", "--temperatures", "1"],
        "info": ["1b"],
        "info verify": [run, "--verify"],
        "runs": [place],
        "weights": [run, "weights"],
        "export": [run, "--to", "safetensors", "--out", "run.safetensors"],
        "import": [find_checkpoint(run), "--out", "imported"],
        "publish": [run, "me/model", "--dry-run", "--out", "published"],
        "merge": [run, place / "adapter", "merged"],
    }


USUALLY = {"demo": 2, "smoke": 1, "generate what comes": 2}  # nothing comes; all others: 0


def run_all(arguments: dict[str, list[Any]], where: Path, streams: str) -> dict[str, int]:
    """Exit codes; the streams that were not redirected are in the files out and err."""
    shell = f'exec "$0" -c "$1" "$2" "$3" </dev/null >out 2>err {streams}'
    named = {name: [name.split()[0], *map(str, options)] for name, options in arguments.items()}
    environment = {**os.environ, "PYTHONIOENCODING": "ascii" if "ascii" in streams else "utf-8"}
    command = ["bash", "-c", shell, sys.executable, DRIVER, json.dumps(named), "codes.json"]
    done = subprocess.run(command, cwd=where, env=environment, check=False)
    assert done.returncode in (0, 120), (where / "err").read_text()
    assert "Traceback" not in (where / "err").read_text("utf-8", "replace")
    codes: dict[str, int] = json.loads((where / "codes.json").read_text())
    return codes


@pytest.mark.parametrize(
    ("streams", "printing"),
    [
        ("<&- >&- 2>&-", None),
        ("2>/dev/full # ascii", None),
        (">/dev/full", 2),
    ],
)
def test_every_command_survives_broken_streams(
    place: Path, recipe: Recipe, base: Path, tmp_path: Path, streams: str, printing: int | None
) -> None:
    arguments = commands(place, recipe, base)
    assert {name.split()[0] for name in arguments} == set(COMMANDS)
    codes = run_all(arguments, tmp_path, streams)
    for name in arguments:
        expected = USUALLY.get(name, 0)
        if printing and name.split()[0] in OUTPUT_COMMANDS and name != "chat what comes":
            expected = printing if expected != 2 else 2
        assert codes[name] == expected, (name, (tmp_path / "err").read_text("utf-8", "replace"))
    made = {"data/manifest.json", "tuned/answers.md", "tuned/report.html", "pretrained/report.html"}
    made |= {"weights", "run.safetensors", "imported", "published/README.md", "merged"}
    made |= {"evaluation.json"}
    assert [name for name in made if not (tmp_path / name).exists()] == []
    for name in ("pretrained", "tuned", "preferred"):
        assert find_checkpoint(tmp_path / name)
        assert '"finished"' in (tmp_path / name / "events.jsonl").read_text()
    if "ascii" in streams:
        said = (tmp_path / "out").read_text("utf-8")
        assert "\\u2500 2 of 2 " in said and "1,050,002,688" in said and "\\u2500 document " in said
