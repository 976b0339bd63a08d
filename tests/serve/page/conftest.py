"""A server of two runs with several checkpoints, and a real browser on its page."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.serve.server_process import ServerProcess, serve
from tests.small_models import with_train

from gnano.config.recipe import Recipe
from gnano.train.trainer import train

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
LAN = "lan.test"  # a name of this machine that browsers do not trust as they trust 127.0.0.1
WINDOW = {"width": 1280, "height": 820}
# a pause in each step, so that a test sees a text while it is written
SLOWER_STEPS = """
import time
from gnano.infer.continuous_batching import ContinuousBatch
step = ContinuousBatch.step
def slower_step(self, *rest, **options):
    time.sleep(0.01)
    return step(self, *rest, **options)
ContinuousBatch.step = slower_step
"""


@pytest.fixture(scope="session")
def runs(recipe: Recipe, sft_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `small` (steps 9 and 12) and `small-sft` (4 and 8)."""
    folder = tmp_path_factory.mktemp("page-runs")
    size = {"tokens_per_step": 512, "micro_batch_size": 1}
    shape = replace(recipe, model=replace(recipe.model, block_size=512))
    train(with_train(shape, steps=12, save_every=3, eval_every=3, **size), folder / "small")
    start = str(folder / "small")
    tuned = with_train(sft_recipe, steps=8, save_every=4, init_from=start, **size)
    train(replace(tuned, data=replace(tuned.tuning_data, epochs=0.0)), folder / "small-sft")
    return folder


@pytest.fixture(scope="session")
def server(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of both runs, 10 ms a token; its preferences go to `preferences.jsonl`."""
    folder = tmp_path_factory.mktemp("page-server")
    preferences = folder / "preferences.jsonl"
    options = ["--preferences", preferences, "--allow-host", LAN]
    with serve(runs, *options, program=SLOWER_STEPS) as process:
        process.folder = folder
        yield process
        assert process.stop() == 0


def until(page: "Page", expression: str, seconds: float = 20) -> None:
    """Wait until an expression is true; Playwright's own wait needs `eval`, which is forbidden."""
    for _ in range(int(seconds * 20)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it did not become true: {expression}")


# Of a module, not of the session: where Playwright runs, other tests cannot run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
    if not CHROMIUM:
        pytest.skip("Chromium is not installed.")
    with playwright.sync_playwright() as api:
        options = ["--no-sandbox", f"--host-resolver-rules=MAP {LAN} 127.0.0.1"]
        started = api.chromium.launch(executable_path=CHROMIUM, args=options)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Return a function that opens an address in a browser that remembers nothing.

    At the end, the test fails where a page wrote an error to the console, as it does where its
    security policy was violated. `expected` are parts of errors that the test is about.
    """
    pages: list[tuple[Any, list[str], tuple[str, ...]]] = []

    def open_(url: str, *expected: str, script: str = "", **options: Any) -> "Page":
        context = browser.new_context(**{"viewport": WINDOW, **options})
        context.set_default_timeout(10_000)
        errors: list[str] = []
        page = context.new_page()
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        if script:
            page.add_init_script(script)
        pages.append((context, errors, expected))
        page.goto(url)
        return page

    yield open_
    for context, errors, expected in pages:
        context.close()
        assert [e for e in errors if not any(part in e for part in expected)] == []


@pytest.fixture
def page(open_page: Callable[..., "Page"], server: ServerProcess) -> "Page":
    """The page of the server, which must write no error to the console."""
    return open_page(server.url)
