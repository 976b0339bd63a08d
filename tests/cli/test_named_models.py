"""Commands take a model by its name on the Hub, with the real client and a small local Hub."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import tomli_w
from tests.data.hf_hub.hub_server import HIDDEN, Hub
from tests.small_models import with_train

pytestmark = pytest.mark.slow


@pytest.fixture
def gnano(base, tmp_path):
    """A function that runs a command beside a Hub with the model me/base."""
    hub = Hub()
    hub.add("me/base", {file.name: file.read_bytes() for file in base.iterdir()})
    hidden = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    with hub:
        environment = hidden | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}

        def run(*arguments, **changes):
            command = [sys.executable, "-m", "gnano", *map(str, arguments)]
            where = {"cwd": tmp_path, "env": environment | changes}
            return subprocess.run(command, capture_output=True, text=True, **where)

        run.hub = hub  # type: ignore[attr-defined]
        yield run


def test_a_name_works_in_every_command_and_offline_afterwards(gnano, tmp_path):
    (tmp_path / "text.txt").write_text("the river and the house " * 40)
    offline = {"HF_HUB_OFFLINE": "1"}
    generate = ["generate", "me/base", "the river", "-n", "8", "--temperature", "0"]
    first = gnano(*generate)
    assert first.returncode == 0, first.stderr
    assert gnano(*generate, **offline).stdout == first.stdout != ""
    chat = gnano("chat", "me/base@main", "--format", "plain", "--prompt", "Hi", "-n", "4")
    assert chat.returncode == 0, chat.stderr
    out = tmp_path / "evaluation.json"
    evaluated = ["eval", "me/base", "--tasks", "none", "--text", "text.txt", "--out", out]
    assert gnano(*evaluated, **offline).returncode == 0
    assert json.loads(out.read_text())["name"] == "base"
    exported = gnano("export", "me/base", "--to", "safetensors", **offline)
    assert exported.returncode == 0 and "base-bf16.safetensors" in exported.stdout
    missing = gnano("generate", "me/none", "the")
    assert missing.returncode == 2 and "has no model me/none" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_a_tuning_resumes_from_the_commit_that_it_started_from(gnano, sft_recipe, base, tmp_path):
    recipe = with_train(sft_recipe, steps=4, save_every=2, eval_every=4, init_from="")
    recipe = replace(recipe, data=replace(recipe.tuning_data, epochs=0.0))
    (tmp_path / "sft.toml").write_text(tomli_w.dumps(asdict(recipe)))
    command = ["sft", "sft.toml", "--from", "me/base", "--out", "run", "--answers", "0"]
    first = gnano(*command, "--train.steps", "2")
    assert first.returncode == 0, first.stderr
    files = {file.name: file.read_bytes() for file in base.iterdir()}
    gnano.hub.add("me/base", files | {"LICENSE": b"another commit"})
    resumed = gnano(*command, "--train.steps", "4", "--allow", "train.steps")
    assert resumed.returncode == 0, resumed.stderr
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").open()]
    assert [event["step"] for event in events if event["event"] == "started"] == [0, 2]
