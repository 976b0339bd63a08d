"""Shards are read as written, and a damaged one is named when it is first read."""

import re
import shutil
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, lists
from tests.tokenizer.families import save_family

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.inspection import verify_data
from gnano.data.packed_dataset import PackedDataset, TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.data.shards import ShardWriter, open_shard_file

END = 65_535
many_documents = lists(lists(integers(0, END - 1), max_size=20), max_size=10)


def write(folder, documents, name="00000"):
    with ShardWriter(Path(folder), name, END, 2**16) as shard:
        for ids in documents:
            shard.add(np.array(ids, dtype=np.int64), 10 + len(ids))
        return shard.finish()


@settings(deadline=None, max_examples=40)
@given(documents=many_documents)
def test_ids_and_document_starts_are_read_as_written(documents):
    with TemporaryDirectory() as folder:
        info = write(folder, documents)
        tokens = np.array(open_shard_file(Path(folder), info, "tokens"))
        starts = np.fromfile(Path(folder) / "00000.docs", dtype="<u4")
    assert [part.tolist() for part in np.split(tokens, starts)[1:]] == [
        [END, *d] for d in documents
    ]
    assert info.documents == len(documents)
    assert info.tokens == sum(len(ids) + 1 for ids in documents)
    assert info.bytes == sum(len(ids) + 10 for ids in documents)


def test_the_file_is_little_endian_16_bit_ids_and_nothing_else(tmp_path):
    write(tmp_path, [[1, 256], [2]])
    assert (tmp_path / "00000.tokens").read_bytes() == b"\xff\xff\x01\x00\x00\x01\xff\xff\x02\x00"
    assert (tmp_path / "00000.docs").read_bytes() == b"\x00\x00\x00\x00\x03\x00\x00\x00"


def test_a_shard_is_not_visible_before_it_is_complete(tmp_path):
    with ShardWriter(tmp_path, "00000", END, 2**16) as shard:
        shard.add(np.array([1, 2, 3]), 3)
        assert not list(tmp_path.glob("*.tokens")) + list(tmp_path.glob("*.docs"))
    assert not list(tmp_path.glob("*.tokens")) + list(tmp_path.glob("*.docs"))  # interrupted


def test_a_reader_cannot_change_a_shard(tmp_path):
    tokens = open_shard_file(tmp_path, write(tmp_path, [[1, 2]]), "tokens")
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 3


@pytest.fixture
def copy(mix, tmp_path):
    """Return a copy of the prepared folder, to be damaged."""
    return Path(shutil.copytree(mix.folder, tmp_path / "copy"))


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-2])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0\0")


DAMAGES = {
    "first byte": lambda path: flip(path, 0),
    "a byte inside": lambda path: flip(path, 0.4),
    "last byte": lambda path: flip(path, 1),
    "cut": cut,
    "longer": lengthen,
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_named_when_first_read(copy, damage):
    path = copy / "b" / "00001-000.tokens"
    DAMAGES[damage](path)
    corpus = TokenizedCorpus(copy)
    shard = [info.name for info in corpus.shard_infos[1]].index("00001-000")
    corpus.shard_tokens(1, shard - 1), corpus.shard_tokens(0, shard)  # the others can still be read
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        corpus.shard_tokens(1, shard)
    assert "gnano prepare" in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_held_out_text_is_named_when_first_read(copy, damage):
    path = copy / "b" / "00001-heldout.tokens"
    DAMAGES[damage](path)
    for read in (
        lambda: TokenizedCorpus(copy).heldout_rows(1, 16),
        lambda: TokenizedCorpus(copy).heldout_text(1),
    ):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_document_starts_are_named_when_first_read(copy, damage):
    path = copy / "b" / "00000-001.docs"
    DAMAGES[damage](path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        TokenizedCorpus(copy).document_offsets(1, 1)


def test_without_checksums_only_the_size_is_checked(copy):
    """A wrong size is still noticed, a flipped bit is not."""
    path = copy / "b" / "00000-001.tokens"
    flip(path, 0.4)
    TokenizedCorpus(copy, verify_checksums=False).shard_tokens(1, 1)
    cut(path)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        TokenizedCorpus(copy, verify_checksums=False).shard_tokens(1, 1)


def test_training_never_sees_a_damaged_shard(copy):
    for path in (copy / "b").glob("*-[0-9]*.tokens"):
        flip(path, 0.5)
    dataset = PackedDataset(TokenizedCorpus(copy), {"a": 1, "b": 1, "c": 1}, 0, 16)
    for i in range(50):
        if dataset.sampler.locate(i).source == 1:
            with pytest.raises(ValueError, match="does not match its checksum"):
                dataset.read_batch([i])
        else:
            dataset.read_batch([i])


def test_ids_of_more_than_16_bits_are_stored_read_and_deduplicated(tmp_path):
    """A tokenizer of 70,000 ids, as Llama 3's and Qwen's are larger than 65,536."""
    backend = save_family("llama3", tmp_path / "tokenizer")
    words = [f"word{number}" for number in range(70_000)]
    backend.add_tokens(words)
    (tmp_path / "tokenizer/tokenizer.json").write_text(backend.to_str(), "utf-8")
    (tmp_path / "corpus").mkdir()
    texts = [" ".join(words[number::997]) for number in range(60)]
    for number, text in enumerate([*texts, texts[0]]):  # one is repeated
        (tmp_path / f"corpus/{number:03}.txt").write_text(text)
    config = DataConfig(
        folder=str(tmp_path / "data"),
        tokenizer=str(tmp_path / "tokenizer"),
        heldout_fraction=0.1,
        sources={"words": SourceConfig(files=(str(tmp_path / "corpus"),))},
        workers=1,
    )
    manifest = prepare(config)
    source = manifest.sources["words"]
    assert source.dropped["repeated"] == 1
    assert {shard.id_bytes for shard in [*source.shards, *source.heldout]} == {4}
    for shard in source.shards:
        assert (tmp_path / f"data/words/{shard.name}.tokens").stat().st_size == 4 * shard.tokens
    assert verify_data(tmp_path / "data") == []
    corpus = TokenizedCorpus(tmp_path / "data")
    tokens = [corpus.shard_tokens(0, number).tolist() for number in range(len(source.shards))]
    ids = [*chain.from_iterable(tokens), *corpus.heldout_tokens(0).tolist()]
    assert max(ids) > 2**16
    end = corpus.tokenizer.end_of_text_id
    groups = (list(part) for is_end, part in groupby(ids, end.__eq__) if not is_end)
    assert sorted(map(corpus.tokenizer.decode, groups)) == sorted(texts)
    assert prepare(config).fingerprint == manifest.fingerprint


def test_ids_of_16_bits_leave_no_trace_in_the_manifest(recipe):
    text = (Path(recipe.pretraining_data.folder) / "manifest.json").read_text()
    assert "sha256_tokens" in text and "id_bytes" not in text
