"""A draft has its task's documents: filtered by length, decontaminated and split."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.data.conftest import DEMO_GENERATORS, numbered, some_texts, with_source, write_jsonl

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.manifest import Manifest, is_heldout
from gnano.data.prepare.pipeline import prepare
from gnano.data.prepare.worker_pool import (
    MIN_SHARD_TOKENS,
    TokenizeJob,
    Worker,
    draft_folder,
    load_draft,
)
from gnano.data.readers import Document
from gnano.tokenizer.hf_tokenizer import load_tokenizer

LENGTHS = [1, 4, 5, 6, 9, 10, 11, 50]


@pytest.fixture
def tokenizer(tokenizer_folder):
    return load_tokenizer(Path(tokenizer_folder))


@pytest.fixture
def draft(tmp_path, tokenizer):
    """draft(texts, heldout=…, shard_tokens=…, **source): return the draft and its folder."""

    def make(texts, heldout=0.0, shard_tokens=10**6, report=lambda *_: None, **source):
        path = Path(write_jsonl(tmp_path / "texts.jsonl", texts))
        config = DataConfig(
            folder=str(tmp_path),
            heldout_fraction=heldout,
            shard_tokens=shard_tokens,
            sources={"a": SourceConfig(**source)},
        )
        worker = Worker(config)
        worker.tokenizer = tokenizer
        worker.tokenize(TokenizeJob(source="a", task=0, paths=[str(path)]), report)
        folder = draft_folder(tmp_path, "a", 0)
        found = load_draft(folder)
        assert found is not None
        return found, folder

    return make


def trained(found, folder, tokenizer):
    """Return the training documents of a draft."""
    return [text for shard in found.shards for text in texts_of(folder, shard.name, tokenizer)]


def texts_of(folder, name, tokenizer):
    ids = np.fromfile(folder / f"{name}.tokens", "<u2")
    cuts = np.flatnonzero(ids == tokenizer.end_of_text_id)
    return [tokenizer.decode(part.tolist()) for part in np.split(ids, cuts)[1:]]


@pytest.mark.parametrize(("least", "most"), [(1, 0), (5, 0), (0, 10), (5, 10), (10, 10), (51, 0)])
def test_too_short_and_too_long_documents_are_dropped_and_counted(draft, tokenizer, least, most):
    texts = ["é" * n for n in LENGTHS]  # characters, not bytes
    found, folder = draft(texts, min_chars=least, max_chars=most)
    kept = [t for t in texts if len(t) >= least and (not most or len(t) <= most)]
    assert trained(found, folder, tokenizer) == kept
    assert found.read == len(texts)
    assert found.dropped == {
        "short": sum(n < least for n in LENGTHS),
        "long": sum(bool(most) and n > most for n in LENGTHS),
        "contaminated": 0,
        "empty": 0,
        "bad": 0,
    }


def test_documents_that_share_13_words_with_an_evaluation_are_dropped_and_counted(
    make, prepared, tmp_path
):
    item = " ".join(f"word{n}" for n in range(20))
    clean = numbered(0, 50)
    near = " ".join(f"word{n}" for n in range(12))  # one word too few
    dirty = [f"Before. {item}, after {n}" for n in range(3)]
    write_jsonl(tmp_path / "evals/one.jsonl", [item])
    evaluation = str(tmp_path / "evals/*.jsonl")
    config = make(a=[*clean[:20], *dirty, near, *clean[20:]], heldout=0)
    with_it = replace(config, folder=str(tmp_path / "with"), decontaminate=(evaluation,))
    assert set(prepared(config).training_documents("a")) == {*clean, near, *dirty}
    assert prepared(with_it).training_documents("a") == [*clean[:20], near, *clean[20:]]
    source = Manifest.load(tmp_path / "with").sources["a"]
    assert source.dropped["contaminated"] == 3
    assert source.read == len(clean) + 4


def test_the_split_of_a_document_depends_on_its_text(draft, tokenizer):
    texts = numbered(0, 300)
    _, folder = draft(texts, heldout=0.3)
    held = [t for t in texts if is_heldout(Document(t), 0.3)]
    assert texts_of(folder, "heldout", tokenizer) == held
    assert texts_of(folder, "000", tokenizer) == [t for t in texts if t not in held]
    assert 50 < len(held) < 130


def test_small_shards_have_the_tokens_of_one_large_shard(draft, tokenizer):
    texts = some_texts("abcdefgh", 400)
    (full,) = draft(texts)[0].shards
    found, folder = draft(texts, shard_tokens=1_500)
    shards = [np.fromfile(folder / f"{s.name}.tokens", "<u2") for s in found.shards]
    assert sum(map(len, shards)) == full.tokens
    assert trained(found, folder, tokenizer) == texts
    # each shard ends with the document that fills it, and the last one is not tiny
    longest = max(len(tokenizer.encode(text)) + 1 for text in texts)
    assert all(1_500 <= len(part) < 1_500 + longest for part in shards[:-1])
    assert 1_500 <= len(shards[-1]) < 2 * 1_500 + longest


def test_the_last_shard_of_a_task_is_not_tiny(draft, monkeypatch):
    """Rows are shuffled within shards, which needs shards of many rows."""
    monkeypatch.setattr("gnano.data.prepare.worker_pool.MIN_SHARD_TOKENS", 500)
    assert MIN_SHARD_TOKENS > 500
    texts = some_texts("abcdefgh", 400)
    sizes = [shard.tokens for shard in draft(texts, shard_tokens=3_000)[0].shards]
    assert len(sizes) > 2
    assert min(sizes) >= 500
    assert max(sizes[:-1]) < 3_000 + 200


def test_documents_start_with_end_of_text(mix):
    end = mix.tokenizer.end_of_text_id
    paths = list(mix.folder.glob("*/*.tokens"))
    assert len(paths) > 12
    for path in paths:
        tokens = np.fromfile(path, dtype="<u2")
        starts = np.fromfile(path.with_suffix(".docs"), dtype="<u4")
        assert np.flatnonzero(tokens == end).tolist() == starts.tolist()


def test_a_typed_end_of_text_ends_no_document(draft, tokenizer):
    found, folder = draft([f"{n} before<|endoftext|>after" for n in range(20)])
    tokens = np.fromfile(folder / "000.tokens", "<u2")
    assert np.count_nonzero(tokens == tokenizer.end_of_text_id) == 20
    assert texts_of(folder, "000", tokenizer)[3] == "3 before<|endoftext|>after"
    assert found.shards[0].documents == 20


def test_a_budget_ends_with_the_document_that_reaches_it(draft, tokenizer):
    texts = numbered(0, 200)
    sizes = np.cumsum([len(tokenizer.encode(text)) + 1 for text in texts])
    for budget in (1, int(sizes[9]), int(sizes[9]) + 1, int(sizes[-1]), 10**9):
        found, folder = draft(texts, max_tokens=budget)
        wanted = min(int(np.searchsorted(sizes, budget)) + 1, len(texts))
        assert texts_of(folder, "000", tokenizer) == texts[:wanted]
        assert found.read == wanted


def test_the_last_report_has_the_total_counts(draft):
    seen = []
    found, _ = draft(numbered(0, 300), report=lambda *counts: seen.append(counts))
    (shard,) = found.shards
    assert seen[-1] == (300, shard.bytes, shard.tokens)
    assert len(seen) > 2
    assert seen == sorted(seen)


@pytest.mark.parametrize("lost", ["000.tokens", "heldout.docs", "draft.json"])
def test_an_incomplete_draft_is_not_loaded(draft, lost):
    _, folder = draft(numbered(0, 100), heldout=0.2)
    (folder / lost).write_bytes((folder / lost).read_bytes()[:-1])
    assert load_draft(folder) is None
    (folder / lost).unlink()
    assert load_draft(folder) is None


def test_an_interrupted_draft_is_not_reused(draft, tmp_path):
    def stop(documents, size, tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draft(numbered(0, 300), report=stop)
    folder = draft_folder(tmp_path, "a", 0)
    assert load_draft(folder) is None
    assert draft(numbered(0, 300))[0].read == 300
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.slow
@pytest.mark.parametrize("generator", DEMO_GENERATORS)
def test_generated_text_is_prepared_like_any_other(make, prepared, generator):
    config = make(a=["to be replaced"], heldout=0.3)
    generated = {"kind": "generator", "generator": generator, "files": (), "max_bytes": 30_000}
    done = prepared(with_source(config, "a", **generated))
    both = {*done.training_documents("a")}, {*done.heldout_documents("a")}
    assert all(both) and not both[0] & both[1]
    size = sum(len(text.encode()) for side in both for text in side)
    assert 20_000 < size < 80_000


@pytest.mark.slow
def test_generated_text_is_the_same_plan_and_the_same_shards_again(make):
    generated = {"generator": DEMO_GENERATORS[1], "files": (), "max_bytes": 20_000}
    one, two = (
        with_source(make(folder, a=["x"]), "a", kind="generator", **generated)
        for folder in ("one", "two")
    )
    assert prepare(one) == prepare(two)
