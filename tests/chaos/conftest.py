"""How many faults a run is put through, and how many it came out of."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.runs import run
from tests.small_models import with_train

from gnano.config.recipe import Recipe

tried: dict[str, int] = {}
survived: dict[str, int] = {}


@pytest.fixture(scope="session")
def kills() -> int:
    """`GNANO_CHAOS=20 make test` kills as often as that; a plain `make test` less."""
    return int(os.environ.get("GNANO_CHAOS", "6"))


@pytest.fixture(scope="session")
def chaotic(recipe: Recipe) -> Recipe:
    """A run over three epochs, with dropout, that measures and saves often."""
    return with_train(recipe, steps=60, save_every=8, eval_every=12)


@pytest.fixture(scope="session")
def calm(chaotic: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing ever happened to."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert run(chaotic, folder) == [0]
    return folder


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What a test does to a run, as `kind: detail`; counted as survived where the test passes."""
    done: list[str] = []
    failed = request.session.testsfailed
    yield done
    for kind in (what.partition(":")[0] for what in done):
        tried[kind] = tried.get(kind, 0) + 1
        survived[kind] = survived.get(kind, 0) + (request.session.testsfailed == failed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if tried:
        whole = f"{sum(survived.values())} of {sum(tried.values())}"
        terminalreporter.write_sep("=", f"faults survived: {whole}")
        for kind, times in tried.items():
            terminalreporter.write_line(f"{survived[kind]:>4} of {times:<4} {kind}")
