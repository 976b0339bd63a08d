"""Fixtures that connect the real client to a small local Hub."""

import hashlib

import pytest
from tests.data.hf_hub.hub_server import point_client_to
from tests.data.hf_hub.samples import the_three

from gnano.utils import hf_errors
from gnano.utils.hf_datasets import HubFile, resolve_dataset


def lfs(name, content):
    return HubFile(name, len(content), hashlib.sha256(content).hexdigest())


def names(repo, config="", split="train", revision="main"):
    return [file.name for file in resolve_dataset(repo, config, split, revision)[1]]


@pytest.fixture
def waits(monkeypatch):
    """Record the waits between attempts instead of waiting."""
    seconds: list[float] = []
    monkeypatch.setattr(hf_errors, "sleep", seconds.append)
    return seconds


@pytest.fixture
def hub(monkeypatch, tmp_path, waits):
    """Serve the three datasets of the reference recipe, without a token or login."""
    with the_three() as served:
        point_client_to(served, monkeypatch, tmp_path / "home")
        yield served


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
