"""The real client against a small Hub of ours, and short ways to ask it."""

import hashlib

import pytest
from tests.data.hf_hub.hub_server import point_client_to
from tests.data.hf_hub.samples import the_three

from gnano.utils import hf_errors as hub_errors
from gnano.utils.hf_hub import HubFile, resolve_dataset


def lfs(name, content):
    return HubFile(name, len(content), hashlib.sha256(content).hexdigest())


def names(repo, config="", split="train", revision="main"):
    return [file.name for file in resolve_dataset(repo, config, split, revision)[1]]


@pytest.fixture
def waits(monkeypatch):
    """How long we would have waited between tries."""
    seconds: list[float] = []
    monkeypatch.setattr(hub_errors, "sleep", seconds.append)
    return seconds


@pytest.fixture
def hub(monkeypatch, tmp_path, waits):
    """The three data sets of the reference recipe; no token, no login, impatient."""
    with the_three() as served:
        point_client_to(served, monkeypatch, tmp_path / "home")
        yield served


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
