"""Counts the faults that runs were exposed to, and those that they survived."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.runs import run
from tests.small_models import with_train

from gnano.config.recipe import Recipe

tried_counts: dict[str, int] = {}
survived_counts: dict[str, int] = {}


@pytest.fixture(scope="session")
def kills() -> int:
    """Return the number of kills: GNANO_CHAOS (20 in `make chaos`), or fewer by default."""
    return int(os.environ.get("GNANO_CHAOS", "6"))


@pytest.fixture(scope="session")
def chaos_recipe(recipe: Recipe) -> Recipe:
    """A run of three epochs, with dropout, that evaluates and saves often."""
    return with_train(recipe, steps=60, save_every=8, eval_every=12)


@pytest.fixture(scope="session")
def reference_run(chaos_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without faults."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert run(chaos_recipe, folder) == [0]
    return folder


@pytest.fixture
def survived(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The faults of a test, as `kind: detail`; they count as survived if the test passes."""
    faults: list[str] = []
    failed = request.session.testsfailed
    yield faults
    for kind in (fault.partition(":")[0] for fault in faults):
        tried_counts[kind] = tried_counts.get(kind, 0) + 1
        passed = request.session.testsfailed == failed
        survived_counts[kind] = survived_counts.get(kind, 0) + passed


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if tried_counts:
        total = f"{sum(survived_counts.values())} of {sum(tried_counts.values())}"
        terminalreporter.write_sep("=", f"faults survived: {total}")
        for kind, count in tried_counts.items():
            terminalreporter.write_line(f"{survived_counts[kind]:>4} of {count:<4} {kind}")
