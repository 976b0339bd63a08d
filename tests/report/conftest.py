import json
import math
import random
import sys
from typing import Any

import pytest


@pytest.fixture
def rows():
    """Rows like a real run's: noisy falling loss, held-out text every `every` steps."""

    def make(steps=200, every=50, final=True):
        noise = random.Random(1)
        made = []
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
            made.append(row)
        if final:
            made[-1]["final"] = True
        return made

    return make


@pytest.fixture
def run(tmp_path, rows):
    """A run folder; `make(rows)` writes its log."""

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
    """As if these packages were not installed."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide
