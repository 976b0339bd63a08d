"""A data folder keeps its plan and its tokenizer: the same ones are resumed, others refused."""

import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.data.conftest import (
    DEMO_GENERATORS,
    numbered,
    parts,
    with_source,
    write_files,
    write_jsonl,
)

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.generators import SourceGenerator
from gnano.data.manifest import Manifest, is_heldout
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.prepare.pipeline import prepare, worker_config
from gnano.data.prepare.worker_pool import TokenizeJob, Worker
from gnano.data.readers import Document
from gnano.data.source_files import find_source_files
from gnano.tokenizer.hf_tokenizer import load_tokenizer


def identities(folder):
    """Return the inode and time of each file, which change if a file is written again."""
    stats = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in stats.items()}


def test_weights_and_seed_may_change_without_new_preparation(make):
    config = make(a=numbered(0, 100), b=numbered(200, 300))
    first = prepare(config)
    folder = Path(config.folder)
    before = [identities(folder / name) for name in "ab"]
    sources = {
        name: replace(s, weight=w)
        for (name, s), w in zip(config.sources.items(), (0.7, 0.0), strict=True)
    }
    second = prepare(replace(config, sources=sources, seed=5))
    assert [identities(folder / name) for name in "ab"] == before
    assert second.fingerprint == first.fingerprint
    assert Manifest.load(folder).weights == {"a": 0.7, "b": 0.0}


def test_execution_options_may_change_without_new_preparation(make):
    config = make(a=numbered(0, 100))
    prepare(config)
    before = identities(Path(config.folder, "a"))
    prepare(
        replace(
            config, workers=3, keep_downloads=True, packing="best-fit", document_attention_mask=True
        )
    )
    assert identities(Path(config.folder, "a")) == before


CHANGES: dict[str, dict[str, Any]] = {
    "heldout": {"heldout_fraction": 0.2},
    "shard_tokens": {"shard_tokens": 1_000},
    "tokenizer": {"tokenizer": "bpe-300"},
}
SOURCE_CHANGES: dict[str, Any] = {"max_tokens": 50, "min_chars": 3, "max_chars": 500}


@pytest.mark.parametrize("change", [*CHANGES, *SOURCE_CHANGES])
def test_another_value_is_refused_by_name_and_nothing_changes(make, tree, change):
    config = make(a=numbered(0, 100), b=numbered(200, 300))
    prepare(config)
    before = tree(config.folder)
    if change in CHANGES:
        changed, name = replace(config, **CHANGES[change]), change
    else:
        changed = with_source(config, "b", **{change: SOURCE_CHANGES[change]})
        name = f"sources.b.{change}"
    with pytest.raises(ValueError, match=re.escape(f"another {name}.")) as error:
        prepare(changed)
    assert config.folder in str(error.value)
    assert tree(config.folder) == before


def test_other_sources_are_refused_by_name(make):
    config = make(a=numbered(0, 100), b=numbered(200, 300))
    prepare(config)
    a, b = config.sources.values()
    for sources in ({"a": a}, {"a": a, "b": b, "c": b}, {"b": b, "a": a}):
        with pytest.raises(ValueError, match=re.escape(f"sources ({', '.join(sources)})")):
            prepare(replace(config, sources=sources))


def test_an_additional_or_a_larger_file_is_another_plan(make, tmp_path):
    config = make(a=numbered(0, 100))
    prepare(config)
    more = write_jsonl(tmp_path / "more.jsonl", ["more"])
    (folder,) = config.sources["a"].files
    with pytest.raises(ValueError, match=r"another sources\.a\.files\."):
        prepare(with_source(config, "a", files=(folder, more)))
    with Path(folder, "a.jsonl").open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(ValueError, match=r"another sources\.a\.files\."):
        prepare(config)


def test_an_additional_evaluation_file_is_another_plan(make, tmp_path):
    config = make(a=numbered(0, 100))
    prepare(config)
    evaluation = write_jsonl(tmp_path / "evaluation.jsonl", ["a question"])
    with pytest.raises(ValueError, match=r"another decontaminate\."):
        prepare(replace(config, decontaminate=(evaluation,)))


def test_a_corpus_that_was_moved_is_the_same_plan(make, tmp_path):
    config = make(a=parts(numbered(0, 100), 3))
    first = prepare(config)
    (files,) = config.sources["a"].files
    moved = shutil.move(files, tmp_path / "moved" / "elsewhere")
    assert prepare(with_source(config, "a", files=(f"{moved}/*.jsonl",))) == first


@pytest.mark.slow
def test_the_same_texts_prepared_elsewhere_give_the_same_order(make, tmp_path):
    config = make("one", a=parts(numbered(0, 200), 3), b=numbered(300, 400))
    other = replace(config, folder=str(tmp_path / "two"))
    for name, source in config.sources.items():
        copied = shutil.copytree(source.files[0], tmp_path / "copied" / name)
        other = with_source(other, name, files=(str(copied),))
    batches = []
    for each in (config, other):
        assert prepare(each).complete
        batches.append(PackedDataset(TokenizedCorpus(Path(each.folder)), {"a": 1, "b": 2}, 3, 32))
    one, two = (batch.read_batch(range(200)).inputs_BT for batch in batches)
    assert one.equal(two)
    assert batches[0].corpus.manifest.fingerprint == batches[1].corpus.manifest.fingerprint


@pytest.fixture
def broken_corpus(make, small_tasks):
    """A configuration of four tasks with a bad line in the third, and its correction."""
    config = make(a=parts(numbered(0, 400), 4), shard_tokens=1_000, max_bad_share=0)
    prepare(replace(config, folder=config.folder + "-complete"))
    tasks = Manifest.load(Path(config.folder + "-complete")).plan.sources["a"].tasks
    paths = [Path(config.sources["a"].files[0], file.name) for (file,) in tasks]
    good = [path.read_text() for path in paths]
    paths[2].write_text(good[2].replace('"text": "', '"text: "', 1))
    with pytest.raises(ValueError, match=re.escape(f"{paths[2]}, line 1: it is not JSON")):
        prepare(config)
    return config, paths, good


def test_a_corrected_file_of_an_unfinished_task_is_accepted(broken_corpus, tree):
    config, paths, good = broken_corpus
    folder = Path(config.folder)
    assert [p.name for p in sorted((folder / "a").glob("*.json"))] == ["00000.json", "00001.json"]
    before = identities(folder / "a")
    paths[2].write_text(good[2])
    prepare(config)
    after = identities(folder / "a")
    kept = {path: at for path, at in before.items() if path.suffix in (".tokens", ".docs")}
    assert kept and kept.items() <= after.items()
    assert tree(folder) == tree(config.folder + "-complete")


def test_a_changed_file_of_a_finished_task_is_refused(broken_corpus, tree):
    config, paths, good = broken_corpus
    before = tree(config.folder)
    paths[1].write_text(good[1] + '{"text": "one more"}\n')
    with pytest.raises(ValueError, match=r"another sources\.a\.files\."):
        prepare(config)
    assert tree(config.folder) == before


def test_a_corrected_file_is_tokenized_again_despite_its_draft(broken_corpus, prepared):
    """Drafts may exist before their tasks are merged; one of the old file must be deleted."""
    config, paths, good = broken_corpus
    Worker(worker_config(config)).run(
        TokenizeJob(source="a", task=3, paths=[str(paths[3])]), lambda _: None
    )
    assert Path(config.folder, ".work", "a", "00003", "draft.json").exists()
    paths[2].write_text(good[2])
    paths[3].write_text(good[3].replace("a few words", "several words"))
    texts = prepared(config).training_documents("a")
    assert sum("several" in text for text in texts) > 50
    assert sum("few" in text for text in texts) > 150


def test_a_corrected_file_of_another_size_duplicates_no_document(make, prepared, small_tasks):
    """The order of tasks depends on file sizes, so a corrected file may change it."""
    files = {"a": parts(numbered(0, 240), 4), "b": parts(numbered(900, 1_140), 4)}
    config = with_source(make(**files, heldout=0, max_bad_share=0), "a", max_tokens=3_000)
    bad_file, later = (
        Path(
            config.sources[name].files[0], find_source_files(config.sources[name]).tasks[n][0].name
        )
        for name, n in (("a", 1), ("b", 2))
    )
    common = numbered(5_000, 5_030)
    write_jsonl(later, common)
    bad_file.write_text("{broken" + 40_000 * " ")
    with pytest.raises(ValueError, match="is not JSON"):
        prepare(config)
    assert len(Manifest.load(Path(config.folder)).sources["b"].tasks) == 3
    write_jsonl(bad_file, common[:5])
    with suppress(ValueError):  # it may be refused
        done = prepared(config)
        texts = [text for name in "ab" for text in done.training_documents(name)]
        assert len(texts) == len(set(texts))


def test_other_files_in_the_data_folder_are_never_deleted(tmp_path, tokenizer_folder):
    """A source with the name of its texts' folder, and files with names of shards."""
    texts = {f"{n:05}.jsonl": numbered(n * 20, n * 20 + 20) for n in range(3)}
    raw = Path(write_files(tmp_path / "data" / "wiki", texts))
    before = {path: path.read_bytes() for path in raw.iterdir()}
    config = DataConfig(
        folder=str(tmp_path / "data"),
        tokenizer=tokenizer_folder,
        workers=1,
        sources={"wiki": SourceConfig(files=(f"{raw}/*.jsonl",))},
    )
    with suppress(ValueError):  # or it may refuse them
        prepare(config)
    assert {path: path.read_bytes() for path in before if path.exists()} == before


def test_errors_of_all_sources_are_reported_together(make, tmp_path):
    """A user wants to correct all errors in one step."""
    config = make(a=numbered(0, 20), b=["x"], c=["y"], d=["z"])
    nothing = str(tmp_path / "nothing" / "*.txt")
    (bad_file,) = Path(config.sources["c"].files[0]).iterdir()
    bad_file.write_text("no JSON\n")
    config = with_source(config, "b", files=(nothing,))
    config = with_source(config, "d", column="body")
    with pytest.raises(ValueError, match=r"data\.sources\.b:") as error:
        prepare(config)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [f"data.sources.{name}" for name in "bcd"]
    assert repr(nothing) in lines[0]
    assert str(bad_file) in lines[1] and "not JSON" in lines[1]
    assert "'body'" in lines[2] and "it has 'text'" in lines[2]
    assert not Path(config.folder, "manifest.json").exists()


CODE = DEMO_GENERATORS[1]


def test_a_finished_folder_does_not_load_its_generator(make, monkeypatch):
    config = make(a=["x"])
    config = with_source(config, "a", kind="generator", generator=CODE, files=(), max_bytes=20_000)
    first = prepare(config)

    def elsewhere():
        raise AssertionError("another Python, with other packages")

    monkeypatch.setattr(CODE.replace(":", "."), SourceGenerator(elsewhere, elsewhere))
    assert prepare(config) == first


@pytest.mark.parametrize("tokenizer", [None, "bpe-257"])
def test_a_source_without_text_is_named(make, tokenizer):
    config = make(a=numbered(0, 20), empty=["", " \n"])
    with pytest.raises(ValueError, match=r"data\.sources\.empty: .*no training text"):
        prepare(config if tokenizer is None else replace(config, tokenizer=tokenizer))


def test_no_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data\.sources"):
        prepare(DataConfig(folder=str(tmp_path / "prepared")))


def test_a_replaced_tokenizer_is_refused(make, mix):
    config = make(tokenizer="bpe-300", a=mix.texts("a"), b=mix.texts("b"))
    prepare(config)
    mix.tokenizer.save(Path(config.folder))
    with pytest.raises(ValueError, match=r"tokenizer\.json is not the tokenizer that made"):
        prepare(config)


@pytest.mark.parametrize("tokenizer", ["llama", "bpe-", "bpe-x", "bpe-²", "gpt3", "nowhere/at/all"])
def test_an_unknown_tokenizer_is_named(make, tokenizer):
    with pytest.raises(ValueError, match=f"data.tokenizer is '{tokenizer}'"):
        prepare(make(tokenizer=tokenizer, a=numbered(0, 20)))


@pytest.mark.parametrize("size", [1, 256, 70_000])
def test_a_vocabulary_size_out_of_bounds_is_refused(make, size):
    with pytest.raises(ValueError, match=f"{size:,}.*257"):
        prepare(make(tokenizer=f"bpe-{size}", a=numbered(0, 20)))


@pytest.mark.parametrize("heldout", [0.3, 0])
def test_the_tokenizer_is_trained_on_training_text_only(make, mix, heldout):
    marker = "QZX" * 400
    marked = next(text for n in range(100) if is_heldout(Document(text := f"{n} {marker}"), 0.3))
    config = make(tokenizer="bpe-300", a=[*mix.texts("a"), marked], heldout=heldout)
    prepare(config)
    tokens = len(load_tokenizer(Path(config.folder)).encode("QZXQZX"))
    assert tokens == 6 if heldout else tokens < 3  # if not held out, it is learnt


def test_two_runs_train_the_same_tokenizer(make, tree, mix):
    one, two = (make(folder, tokenizer="bpe-300", a=mix.texts("a")) for folder in ("one", "two"))
    prepare(one)
    prepare(two)
    assert tree(one.folder) == tree(two.folder)
    assert load_tokenizer(Path(one.folder)).vocab_size == 300
