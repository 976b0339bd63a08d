import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from gnano.data import Corpus, DataConfig, Document, Manifest, Source, prepare
from gnano.data.split import is_heldout
from gnano.tokenizer import Tokenizer
from gnano.tokenizer.bpe import BYTE_LETTERS, END_OF_TEXT


def numbered(start, stop):
    return [f"text number {n} of a few words, abc" for n in range(start, stop)]


def identities(folder):
    """Which files these are and when they were written: changes when anything is done again."""
    stats = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def test_two_runs_give_the_same_bytes(make, tree):
    one, two = (
        make(folder, a=numbered(0, 300), b=numbered(500, 800), shard_tokens=1_000)
        for folder in ("one", "two")
    )
    prepare(one)
    prepare(two)
    files = tree(one.folder)
    assert {"manifest.json", "tokenizer.json", "a/00001.tokens", "b/heldout.docs"} <= set(files)
    assert tree(two.folder) == files


def test_two_runs_train_the_same_tokenizer(make, tree, mix):
    one, two = (make(folder, tokenizer="bpe-300", a=mix.texts["a"]) for folder in ("one", "two"))
    prepare(one)
    prepare(two)
    assert tree(one.folder) == tree(two.folder)
    assert Tokenizer.load(Path(one.folder)).vocab_size == 300


def test_prepared_again_nothing_is_done_again(make, tree):
    config = make(a=numbered(0, 300), b=numbered(500, 800))
    manifest = prepare(config)
    before, files = identities(Path(config.folder, "a")), tree(config.folder)
    assert prepare(config) == manifest
    assert identities(Path(config.folder, "a")) == before
    assert tree(config.folder) == files


def test_every_document_is_in_the_shards_once_and_in_order(mix):
    for name, texts in mix.texts.items():
        trained = mix.training_documents(name)
        heldout = mix.documents(mix.heldout(name))
        assert trained == [text for text in texts if text not in heldout]
        assert heldout == [text for text in texts if text not in trained]
        assert len(trained) + len(heldout) == len(texts)


def test_the_manifest_counts_what_is_there(mix):
    manifest = Manifest.load(mix.folder)
    assert manifest.complete
    assert list(manifest.sources) == list(mix.texts)
    for name, source in manifest.sources.items():
        trained = mix.training_documents(name)
        assert source.documents == len(trained)
        assert source.bytes == sum(len(text.encode()) for text in trained)
        assert source.tokens == sum(map(len, mix.shards(name)))
        heldout = mix.documents(mix.heldout(name))
        assert source.heldout.documents == len(heldout)
        assert source.heldout.bytes == sum(len(text.encode()) for text in heldout)


def test_small_shards_hold_the_same_tokens_one_after_another(make, mix, prepared):
    large, small = (
        prepared(make(str(size), a=mix.texts["a"], shard_tokens=size)) for size in (10**6, 1_500)
    )
    (whole,) = large.shards("a")
    parts = small.shards("a")
    assert len(parts) > 3
    assert np.concatenate(parts).tolist() == whole.tolist()
    # each is closed by the document that fills it
    longest = max(len(small.tokenizer.encode(text)) + 1 for text in mix.texts["a"])
    assert all(1_500 <= len(part) < 1_500 + longest for part in parts[:-1])
    assert len(parts[-1]) < 1_500 + longest


def test_document_starts_are_where_end_of_text_stands(mix):
    end = mix.tokenizer.end_of_text
    for path in chain.from_iterable((mix.folder / name).glob("*.tokens") for name in mix.texts):
        tokens = np.fromfile(path, dtype="<u2")
        starts = np.fromfile(path.with_suffix(".docs"), dtype="<u4")
        assert np.flatnonzero(tokens == end).tolist() == starts.tolist()


def test_a_typed_end_of_text_ends_no_document(make):
    texts = [f"{n} before<|endoftext|>after" for n in range(20)]
    config = make(a=texts, heldout=0)
    prepare(config)
    tokens = np.fromfile(Path(config.folder, "a", "00000.tokens"), dtype="<u2")
    end = Tokenizer.load(Path(config.folder)).end_of_text
    assert np.count_nonzero(tokens == end) == 20


def test_repeated_documents_are_dropped_and_counted(make, mix):
    texts = numbered(0, 50)
    once, often = make("once", a=texts), make("often", a=texts[:30] + texts[:10] + texts + texts)
    prepare(once)
    manifest = prepare(often)
    assert manifest.sources["a"].duplicates == 10 + 30 + 50
    assert manifest.fingerprint == Manifest.load(Path(once.folder)).fingerprint


def test_held_out_texts_are_in_no_sources_training_text(make, prepared):
    shared = numbered(0, 200)
    done = prepared(make(a=shared + numbered(300, 500), b=numbered(600, 800) + shared, heldout=0.3))
    trained = {t for name in "ab" for t in done.training_documents(name)}
    heldout = {t for name in "ab" for t in done.documents(done.heldout(name))}
    assert trained | heldout == set(shared + numbered(300, 500) + numbered(600, 800))
    assert trained.isdisjoint(heldout)
    assert 20 < len(heldout & set(shared)) < 100


def test_the_held_out_share_is_about_right(make):
    source = prepare(make(a=numbered(0, 3_000), heldout=0.2)).sources["a"]
    assert abs(source.heldout.documents - 600) < 5 * (3_000 * 0.2 * 0.8) ** 0.5


def test_a_text_that_is_held_out_stays_so_when_there_is_more_text(make, prepared):
    small = prepared(make("small", a=numbered(0, 200), heldout=0.1))
    large = prepared(make("large", a=numbered(100, 900), heldout=0.2))
    heldout = set(large.documents(large.heldout("a")))
    assert set(small.documents(small.heldout("a"))) & set(numbered(100, 200)) <= heldout


def broken(config, name):
    """The same sources with a typing error near the end of one; the sizes stay the same."""
    path = Path(config.sources[name].files[0])
    lines = path.read_text().splitlines(keepends=True)
    lines[-20] = lines[-20].replace('": "', '"; "')
    path.write_text("".join(lines))
    return path


def test_a_run_broken_off_goes_on_to_the_same_bytes(make, tree):
    texts = {name: numbered(n * 1_000, n * 1_000 + 600) for n, name in enumerate("abc")}
    whole = make("whole", **texts, shard_tokens=1_000)
    prepare(whole)
    config = make("broken", **texts, shard_tokens=1_000)
    good = Path(config.sources["b"].files[0]).read_text()
    path = broken(config, "b")
    with pytest.raises(ValueError, match=r"b\.jsonl, line 581 is not JSON"):
        prepare(config)
    folder = Path(config.folder)
    assert not (folder / "b").exists()
    with pytest.raises(ValueError, match="not fully prepared"):
        Corpus(folder)
    finished = identities(folder / "a")
    path.write_text(good)
    prepare(config)
    assert identities(folder / "a") == finished
    assert tree(folder) == tree(whole.folder)


KILLED = """
import json, sys, time
from gnano.data import DataConfig, Source, prepare

def progress(source, documents, tokens):
    if source == "b":
        print(documents, flush=True)
        time.sleep(60)

config = json.load(sys.stdin)
sources = {name: Source(**source) for name, source in config.pop("sources").items()}
prepare(DataConfig(**config, sources=sources), progress)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_a_run_killed_in_the_second_source_goes_on_to_the_same_bytes(make, tree):
    texts = {name: numbered(n * 1_000, n * 1_000 + 600) for n, name in enumerate("abc")}
    whole = make("whole", **texts, shard_tokens=1_000)
    prepare(whole)
    config = make("killed", **texts, shard_tokens=1_000)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(asdict(config)).encode())
        process.stdin.close()
        assert 0 < int(process.stdout.readline()) < 600  # in the midst of b
        process.kill()
    folder = Path(config.folder)
    assert (folder / "b.partial").exists()
    assert not (folder / "b").exists()
    finished = identities(folder / "a")
    prepare(config)
    assert identities(folder / "a") == finished
    assert tree(folder) == tree(whole.folder)


def test_weights_may_change_without_new_preparation(make, tree):
    config = make(a=numbered(0, 100), b=numbered(200, 300))
    prepare(config)
    before, files = identities(Path(config.folder, "a")), tree(config.folder)
    weights = {"a": 0.7, "b": 0.0}
    sources = {name: replace(s, weight=weights[name]) for name, s in config.sources.items()}
    prepare(replace(config, sources=sources, seed=5))
    assert identities(Path(config.folder, "a")) == before
    assert tree(config.folder) == files


@pytest.fixture
def other_plans(make, tmp_path):
    """A configuration, and how each part of its plan can be another."""
    config = make(a=numbered(0, 100), b=numbered(200, 300))
    a, b = config.sources["a"], config.sources["b"]
    more = tmp_path / "more.jsonl"
    more.write_text('{"text": "more"}\n')
    return config, {
        "heldout": replace(config, heldout=0.2),
        "shard_tokens": replace(config, shard_tokens=1_000),
        "tokenizer": replace(config, tokenizer="bpe-300"),
        "sources: one less": replace(config, sources={"a": a}),
        "sources: one more": replace(config, sources={"a": a, "b": b, "c": b}),
        "sources: a file more": replace(
            config, sources={"a": replace(a, files=(*a.files, str(more))), "b": b}
        ),
        "sources: a budget": replace(config, sources={"a": replace(a, max_bytes=50), "b": b}),
        "sources: a column": replace(config, sources={"a": replace(a, column="body"), "b": b}),
    }


@pytest.mark.parametrize(
    "change",
    [
        "heldout",
        "shard_tokens",
        "tokenizer",
        "sources: one less",
        "sources: one more",
        "sources: a file more",
        "sources: a budget",
        "sources: a column",
    ],
)
def test_another_plan_is_refused_by_name_and_nothing_is_touched(other_plans, tree, change):
    config, others = other_plans
    prepare(config)
    before = tree(config.folder)
    with pytest.raises(ValueError, match=f"another {change.partition(':')[0]};") as error:
        prepare(others[change])
    assert config.folder in str(error.value)
    assert tree(config.folder) == before


def test_a_file_that_grew_is_another_plan(make):
    config = make(a=numbered(0, 100))
    prepare(config)
    with Path(config.sources["a"].files[0]).open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(ValueError, match="another sources"):
        prepare(config)


@pytest.mark.parametrize("lost", ["a", "b", "a/00000.tokens", "b/00001.docs", "a/heldout.tokens"])
def test_what_was_deleted_is_made_again(make, tree, lost):
    config = make(a=numbered(0, 300), b=numbered(500, 800), shard_tokens=1_000)
    manifest = prepare(config)
    files = tree(config.folder)
    path = Path(config.folder, lost)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    other = Path(config.folder, "b" if lost[0] == "a" else "a")
    before = identities(other)
    assert prepare(config) == manifest
    assert tree(config.folder) == files
    assert identities(other) == before


def test_a_shard_cut_short_is_made_again(make, tree):
    config = make(a=numbered(0, 300))
    prepare(config)
    files = tree(config.folder)
    path = Path(config.folder, "a", "00000.tokens")
    path.write_bytes(path.read_bytes()[:-2])
    prepare(config)
    assert tree(config.folder) == files


def test_files_of_yours_in_the_data_folder_are_never_deleted(tmp_path, tokenizer_folder):
    """A source called like the folder that its texts lie in."""
    raw = tmp_path / "data" / "wiki"
    raw.mkdir(parents=True)
    for n in range(20):
        (raw / f"{n:02}.txt").write_text(f"text {n}")
    config = DataConfig(
        folder=str(tmp_path / "data"),
        tokenizer=tokenizer_folder,
        sources={"wiki": Source(files=(str(raw),))},
    )
    with pytest.raises(ValueError, match=re.escape(str(raw))):
        prepare(config)
    assert [path.read_text() for path in sorted(raw.iterdir())] == [f"text {n}" for n in range(20)]


def test_another_tokenizer_laid_into_the_folder_is_noticed(make, mix):
    config = make(tokenizer="bpe-300", a=mix.texts["a"], b=mix.texts["b"])
    prepare(config)
    shutil.rmtree(Path(config.folder, "b"))
    mix.tokenizer.save(Path(config.folder))
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        prepare(config)


@pytest.mark.parametrize("tokenizer", [None, "bpe-257"])
def test_a_source_without_text_is_named(make, tokenizer):
    config = make(a=numbered(0, 20), empty=["", " \n"])
    with pytest.raises(ValueError, match=r"'empty'.*empty\.jsonl.*no training text"):
        prepare(config if tokenizer is None else replace(config, tokenizer=tokenizer))


def test_a_corpus_without_text_is_named_before_a_tokenizer_is_trained(make):
    with pytest.raises(ValueError, match=r"'empty'"):
        prepare(make(tokenizer="bpe-300", empty=[""]))


def test_a_source_with_nothing_left_to_train_on_is_named(make):
    texts = [t for t in numbered(0, 200) if is_heldout(Document(t), 0.1)]
    with pytest.raises(ValueError, match=rf"'a'.*{len(texts)} of them held out"):
        prepare(make(a=texts))


def test_no_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.sources"):
        prepare(DataConfig(folder=str(tmp_path / "prepared")))


def test_a_pattern_without_files_is_named(make, tmp_path):
    nothing = str(tmp_path / "nothing" / "*.txt")
    config = make(a=numbered(0, 20))
    with pytest.raises(FileNotFoundError, match=re.escape(repr(nothing))):
        prepare(replace(config, sources=config.sources | {"b": Source(files=(nothing,))}))


@pytest.mark.parametrize("tokenizer", ["llama", "bpe-", "bpe-x", "bpe-²", "gpt3", "nowhere/at/all"])
def test_an_unknown_tokenizer_is_named(make, tokenizer):
    with pytest.raises(ValueError, match=f"data.tokenizer is '{tokenizer}'"):
        prepare(make(tokenizer=tokenizer, a=numbered(0, 20)))


@pytest.mark.parametrize("size", [1, 256, 70_000])
def test_a_vocabulary_size_out_of_bounds_is_refused(make, size):
    with pytest.raises(ValueError, match=f"{size:,}.*257"):
        prepare(make(tokenizer=f"bpe-{size}", a=numbered(0, 20)))


def test_a_vocabulary_too_large_for_16_bits_is_refused(make, tmp_path):
    pairs = [x + y for x in BYTE_LETTERS for y in BYTE_LETTERS]
    vocab = {word: n for n, word in enumerate([*BYTE_LETTERS, *pairs, END_OF_TEXT])}
    Tokenizer(vocab, []).save(tmp_path / "large")
    with pytest.raises(ValueError, match="65,793"):
        prepare(make(tokenizer=str(tmp_path / "large"), a=numbered(0, 20)))


@pytest.mark.parametrize("heldout", [0.3, 0])
def test_the_tokenizer_learns_only_from_training_text(make, mix, heldout):
    marker = "QZX" * 400
    marked = next(text for n in range(100) if is_heldout(Document(text := f"{n} {marker}"), 0.3))
    config = make(tokenizer="bpe-300", a=[*mix.texts["a"], marked], heldout=heldout)
    prepare(config)
    tokens = len(Tokenizer.load(Path(config.folder)).encode("QZXQZX"))
    assert tokens == 6 if heldout else tokens < 3  # if not held out, it is learnt


def test_progress_ends_at_what_was_read(make):
    seen = []
    manifest = prepare(
        make(a=numbered(0, 600), b=numbered(700, 720)), lambda *state: seen.append(state)
    )
    last = {source: (documents, tokens) for source, documents, tokens in seen}
    assert last == {
        "a": (600, manifest.sources["a"].tokens),
        "b": (20, manifest.sources["b"].tokens),
    }
    assert len(seen) > 2
