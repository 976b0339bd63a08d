"""A saved tokenizer is loaded unchanged; unsupported files are refused."""

import json
import pickle

import pytest

from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.hf_tokenizer import HFTokenizer, load_tokenizer

TEXT = "It's a naïve café: 漢字 🙂\r\n    <|endoftext|> 12345"


def same(one: Tokenizer, other: Tokenizer) -> bool:
    return one.encode(TEXT) == other.encode(TEXT) and all(
        getattr(one, field) == getattr(other, field)
        for field in ("vocab_size", "end_of_text_id", "name", "fingerprint")
    )


def test_saving_and_loading_changes_nothing(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "folder")
    assert same(load_tokenizer(tmp_path / "new" / "folder"), tokenizer)


def test_a_worker_process_gets_the_same_tokenizer(tokenizer):
    assert same(pickle.loads(pickle.dumps(tokenizer)), tokenizer)


def test_a_tokenizer_saved_by_transformers_is_unchanged(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    assert same(load_tokenizer(tmp_path / "again"), tokenizer)


def test_another_order_of_merges_is_another_fingerprint(trained_tokenizer, tmp_path):
    trained_tokenizer.save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"]["merges"].reverse()
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    assert load_tokenizer(tmp_path).fingerprint != trained_tokenizer.fingerprint


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"empty.tokenizer\.json does not exist"):
        load_tokenizer(tmp_path / "empty")


@pytest.mark.parametrize("content", [b"", b'{"model": ', b"\xff\xfe\x00", b"[" * 100_000])
def test_a_truncated_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json is not valid JSON"):
        load_tokenizer(tmp_path)


MISFITS = {
    "a list": lambda state: [state],
    "no model": lambda state: state.pop("model"),
    "WordPiece": lambda state: state["model"].update(type="WordPiece"),
    "dropout": lambda state: state["model"].update(dropout=0.1),
    "another split": lambda state: state.update(pre_tokenizer={"type": "Whitespace"}),
    "a space put before": lambda state: state["pre_tokenizer"].update(add_prefix_space=True),
    "no regex": lambda state: state["pre_tokenizer"].update(use_regex=False),
    "lowercasing": lambda state: state.update(normalizer={"type": "Lowercase"}),
    "a second control token": lambda state: state["added_tokens"].append({"content": "<s>"}),
    "another control token": lambda state: state["added_tokens"][0].update(content="<s>"),
    "a byte missing": lambda state: state["model"]["vocab"].pop("a"),
    "a token missing": lambda state: state["model"]["vocab"].pop("in"),
    "an id twice": lambda state: state["model"]["vocab"].update(a=5),
    "an id that is text": lambda state: state["model"]["vocab"].update(a="5"),
    "an id that is a list": lambda state: state["model"]["vocab"].update(a=[]),
    "other letters": lambda state: state["model"]["vocab"].update({"漢": 600}),
    "no merges": lambda state: state["model"].update(merges=None),
    "a merge of one": lambda state: state["model"]["merges"].append(["a"]),
    "a merge of numbers": lambda state: state["model"]["merges"].append(5),
    "a merge to nowhere": lambda state: state["model"]["merges"].append(["a", "漢"]),
}


OTHER_KINDS = {
    *("another split", "a space put before", "no regex", "lowercasing", "another control token"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_damaged_tokenizer_is_refused_and_another_kind_is_opened_as_such(
    trained_tokenizer, tmp_path, misfit
):
    trained_tokenizer.save(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    changed = MISFITS[misfit](state)
    (tmp_path / "tokenizer.json").write_text(json.dumps(changed if misfit == "a list" else state))
    if misfit in OTHER_KINDS:
        (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
        if misfit == "another control token":
            (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<s>"}')
        assert isinstance(load_tokenizer(tmp_path), HFTokenizer)
        return
    with pytest.raises(ValueError, match=r"tokenizer\.json is not supported: ") as failure:
        load_tokenizer(tmp_path)
    assert "\n" not in str(failure.value)
