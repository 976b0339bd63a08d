import json
import math
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.trainer import train


@pytest.fixture
def rows():
    """Rows like those of a real run: a noisy falling loss, held-out text every `every` steps."""

    def make(steps=200, every=50, final=True):
        noise = random.Random(1)
        result = []
        for step in range(1, steps + 1):
            loss = 3.1 + 7.2 * math.exp(-step / 30)
            row: dict[str, Any] = {
                "step": step,
                "tokens": step * 4096,
                "loss": loss + noise.gauss(0, 0.1),
                "tokens_per_s": 8000.0 + step % 3,
                "seconds": step * 0.5,
            }
            if every and (step % every == 0 or step == steps):
                total = loss / 2.7
                sources = {"prose": total + 0.3, "synthetic": total - 0.6, "code": total - 0.1}
                row["heldout"] = {"bits_per_byte": total, "sources": sources}
            result.append(row)
        if final:
            result[-1]["final"] = True
        return result

    return make


@pytest.fixture
def rows_with_tasks(rows):
    """Rows of a run with tasks, every `tasks_every` steps and at the end."""

    def make(tasks_every=50, names=("hellaswag", "lambada"), **more):
        result = rows(**more)
        for row in result:
            done = row["step"] / len(result)
            if row is result[-1] or row["step"] % tasks_every == 0:
                row["tasks"] = {
                    name: {"items": 500, "acc": round(0.1 + 0.2 * done, 5), "error": 0.0201}
                    for name in names
                }
                row["tasks"][names[0]]["acc_norm"] = round(0.25 + 0.2 * done, 5)
        return result

    return make


@pytest.fixture(
    params=[
        None, [], "0.3", 0.3, [{"acc": 0.3}], {}, {"piqa": None}, {"piqa": [0.3]},
        {"piqa": {"acc": "0.3", "error": 0.1}}, {"piqa": {"acc": float("nan")}},
        {"piqa": {"acc": 10**400}}, {"piqa": {"items": 500, "error": 0.1}},
    ],
    ids=str,
)  # fmt: skip
def damaged(request):
    """A damaged value of a row's tasks, without an accuracy."""
    return request.param


@pytest.fixture
def run(tmp_path, rows):
    """A function that makes a run folder with a log."""

    def make(metrics=None):
        folder = tmp_path / "first-try"
        folder.mkdir()
        text = "".join(json.dumps(row) + "\n" for row in metrics or rows())
        (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
        (folder / "recipe.toml").write_text('[train]\nnote = "a < b & c"\n', encoding="utf-8")
        return folder

    return make


@pytest.fixture
def without(monkeypatch):
    """A function that makes packages fail to import."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.fixture(scope="session")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of six steps with three checkpoints."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train(
        with_train(recipe, steps=6, save_every=2, eval_every=2, keep_last=9, keep_best=False), run
    )
    return run


@pytest.fixture
def trained_copy(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may change or damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
