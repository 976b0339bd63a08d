"""A folder can be read while it grows: samples never change, new ones are added."""

import json
import re
import shutil

import pytest
from tests.fakes.partial_dataset import PartialDataset

from gnano.data.manifest import Manifest, marker_path
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.sampler import ShardNotReady

T = 64
WEIGHTS = {"a": 40.0, "b": 25.0, "c": 35.0}
SAMPLES = range(2_000)  # more than an epoch of each source


@pytest.fixture
def partial(mix, tmp_path):
    """Return the folder of `mix` after its first three tasks, one of each source."""
    return PartialDataset(mix.folder, tmp_path / "partial", tasks=3)


@pytest.fixture(scope="module")
def all_samples(mix):
    """Return all samples of the finished folder."""
    dataset = PackedDataset(TokenizedCorpus(mix.folder), WEIGHTS, 7, T)
    assert {dataset.sampler.locate(SAMPLES[-k]).epoch for k in range(1, 20)} == {1}
    return [tuple(row) for row in dataset.read_batch(SAMPLES).inputs_BT.tolist()]


def available_samples(dataset):
    """Return the available samples by number."""
    rows = {}
    for i in SAMPLES:
        try:
            rows[i] = tuple(dataset.read_batch([i]).inputs_BT[0].tolist())
        except ShardNotReady:
            continue
    return rows


def test_finished_tasks_are_read_during_preparation(mix, partial):
    corpus = TokenizedCorpus(partial.folder)
    done = partial.sequence[: partial.done]
    for number, name in enumerate(corpus.source_names):
        expected = [shard.name for shard in TokenizedCorpus(mix.folder).shard_infos[number]]
        tasks = [f"{task:05}" for source, task in done if source == name]
        assert [shard.name for shard in corpus.shard_infos[number]] == [
            shard for shard in expected if shard[:5] in tasks
        ]
        assert not corpus.manifest.sources[name].complete
    assert not corpus.manifest.complete
    assert corpus.manifest.fingerprint == Manifest.load(mix.folder).fingerprint


def test_a_new_task_never_changes_an_available_sample(partial, all_samples):
    """Compare with the finished folder after every task."""
    dataset = PackedDataset(TokenizedCorpus(partial.folder), WEIGHTS, 7, T)
    had = 0
    while partial.done < len(partial.sequence):
        rows = available_samples(dataset)
        assert rows == {i: all_samples[i] for i in rows}
        assert len(rows) > had or partial.done == 3
        had = len(rows)
        partial.finish_tasks()
        dataset.missing(SAMPLES)  # adds new shards
    partial.finish_all()
    dataset.corpus.refresh()
    assert dataset.corpus.manifest.complete
    assert dataset.missing(SAMPLES) is None
    assert available_samples(dataset) == dict(enumerate(all_samples))


def test_a_folder_opened_at_any_time_gives_the_same_samples(partial, all_samples):
    for _ in range(3):
        partial.finish_tasks(2)
        rows = available_samples(PackedDataset(TokenizedCorpus(partial.folder), WEIGHTS, 7, T))
        assert rows == {i: all_samples[i] for i in rows}


def test_the_missing_shard_is_named(mix, partial):
    dataset = PackedDataset(TokenizedCorpus(partial.folder), WEIGHTS, 7, T)
    there = available_samples(dataset)
    first = next(i for i in SAMPLES if i not in there)
    assert dataset.missing(range(first)) is None
    source = PackedDataset(TokenizedCorpus(mix.folder), WEIGHTS, 7, T).sampler.locate(first).source
    count = len(dataset.corpus.shard_infos[source])
    message = dataset.missing(range(first + 1))
    assert message is not None
    assert f"shard {count + 1} of source {'abc'[source]!r}" in message
    assert str(partial.folder) in message and "gnano prepare" in message


def test_a_folder_with_nothing_finished_is_waited_for(mix, tmp_path):
    partial = PartialDataset(mix.folder, tmp_path / "partial")
    dataset = PackedDataset(TokenizedCorpus(partial.folder), WEIGHTS, 7, T)
    assert dataset.missing([0]) is not None
    partial.finish_tasks(3)
    assert dataset.missing([0]) is None


def test_a_source_without_weight_is_not_waited_for(mix, tmp_path):
    partial = PartialDataset(mix.folder, tmp_path / "partial")
    while not any(name == "b" for name, _ in partial.sequence[: partial.done]):
        partial.finish_tasks()
    dataset = PackedDataset(TokenizedCorpus(partial.folder), {"a": 0, "b": 1, "c": 0}, 7, T)
    assert dataset.missing(range(10)) is None


def test_a_reader_continues_while_the_markers_are_deleted(mix, partial):
    """`prepare` writes the manifest, then deletes the markers."""
    corpus = TokenizedCorpus(partial.folder)
    partial.finish_all()
    corpus.refresh()
    assert corpus.manifest == Manifest.load(mix.folder)
    for source, name in enumerate(corpus.source_names):
        shards = range(len(corpus.shard_infos[source]))
        ids = [corpus.shard_tokens(source, shard).tolist() for shard in shards]
        assert ids == [tokens.tolist() for tokens in mix.shards(name)]


def test_a_task_counts_only_after_all_earlier_ones(partial):
    """A marker without its predecessors is ignored, because the list may only grow."""
    partial.finish_all()
    late = PartialDataset(partial.finished, partial.folder.with_name("late"))
    late.finish_tasks(len(late.sequence))
    marker_path(late.folder / "a", 1).unlink()
    manifest = Manifest.load(late.folder)
    assert len(manifest.sources["a"].tasks) == 1
    assert not manifest.sources["a"].complete
    assert manifest.sources["b"].complete


def test_a_folder_prepared_again_while_it_is_read_is_refused(partial):
    corpus = TokenizedCorpus(partial.folder)
    other = Manifest.load(partial.folder)
    other.tokenizer = other.tokenizer | {"fingerprint": "0" * 64}
    other.save(partial.folder)
    with pytest.raises(ValueError, match="prepared again while it was read; start again"):
        corpus.refresh()


def test_a_damaged_marker_is_named(partial):
    path = partial.folder / "b" / "00000.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        TokenizedCorpus(partial.folder)


def test_held_out_text_keeps_its_order_as_it_grows(mix, partial):
    corpus = TokenizedCorpus(partial.folder)
    for number, name in enumerate(corpus.source_names):
        expected = mix.heldout(name).tolist()
        part = corpus.heldout_tokens(number).tolist()
        assert 0 < len(part) < len(expected)
        assert part == expected[: len(part)]
        rows = corpus.heldout_rows(number, T)
        final = TokenizedCorpus(mix.folder).heldout_rows(number, T)
        # all but the last, which ends with the text
        assert [r.ids.tolist() for r in rows[:-1]] == [r.ids.tolist() for r in final][
            : len(rows) - 1
        ]


def test_a_manifest_of_an_unfinished_folder_holds_no_tasks(partial):
    content = json.loads((partial.folder / "manifest.json").read_text())
    assert "sources" not in content and content["complete"] is False


def test_a_source_that_ended_too_short_for_a_sequence_is_refused(mix, tmp_path):
    partial = PartialDataset(mix.folder, tmp_path / "partial")
    dataset = PackedDataset(TokenizedCorpus(partial.folder), WEIGHTS, 7, 100_000)
    partial.finish_all()
    with pytest.raises(ValueError, match=r"fewer than 100,001 tokens.*context 100,000"):
        dataset.missing([0])


def test_a_weight_too_small_to_be_sampled_is_refused(mix):
    with pytest.raises(
        ValueError, match=r"'b' has 0\.05% of the weight, and would never be sampled"
    ):
        PackedDataset(TokenizedCorpus(mix.folder), {"a": 1_000, "b": 1, "c": 1_000}, 7, T)


def test_copying_a_folder_elsewhere_gives_the_same_samples(mix, all_samples, tmp_path):
    folder = shutil.copytree(mix.folder, tmp_path / "elsewhere")
    assert available_samples(PackedDataset(TokenizedCorpus(folder), WEIGHTS, 7, T)) == dict(
        enumerate(all_samples)
    )
