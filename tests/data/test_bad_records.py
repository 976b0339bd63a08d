"""Bad records are left out, counted and named, the same by every command."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.conftest import numbered, parts

from gnano.cli import tokenizer as tokenizer_command
from gnano.config.data_config import DataConfig, InstructionConfig, InstructionSource, SourceConfig
from gnano.data.manifest import Manifest
from gnano.data.ngram_overlap import DecontaminationFilter
from gnano.data.prepare.cluster import ClusterPreparation
from gnano.data.prepare.pipeline import prepare
from gnano.data.sft.record_loading import load_conversations, load_preferences
from gnano.evals.eval_tasks import load_tasks
from gnano.reporting.description import describe_data

GOOD = 40
AT = 31  # the line of the bad record

BAD_RECORDS = {
    "raw tab": (b'{"KEY": "one\ttwo"}', "it is not JSON (Invalid control character"),
    "cut": (b'{"KEY": "one', "it is not JSON"),
    "another key": (b'{"body": "x"}', "body"),
    "NaN": (b'{"KEY": NaN}', ""),
    "no object": (b"[1, 2]", ""),
    "Latin-1": ('{"KEY": "café"}'.encode("latin-1"), "its byte 0xE9 is not UTF-8"),
    "too deep": (b"[" * 100_000, "it is not JSON"),
    "too large": (b'{"KEY": ' + b"9" * 5_000 + b"}", ""),
}


def with_bad_record(
    folder: Path, name: str, key: str, record: Mapping[str, object], kind: str
) -> str:
    """Write a file of good records with a bad one at line AT, after a blank line."""
    lines = [json.dumps({**record, key: f"{record.get(key, 'text')} {n}"}) for n in range(GOOD)]
    encoded = [line.encode() for line in lines]
    encoded[AT - 2 : AT - 2] = [b"", BAD_RECORDS[kind][0].replace(b"KEY", key.encode())]
    path = folder / name
    path.write_bytes(b"\n".join(encoded))
    return str(path)


def config_of(folder: Path, path: str, tokenizer: str, share: float) -> DataConfig:
    source = SourceConfig(files=(path,))
    return DataConfig(
        folder=str(folder / f"data {share}"),
        tokenizer=tokenizer,
        heldout_fraction=0,
        workers=1,
        max_bad_share=share,
        sources={"a": source},
    )


@pytest.mark.parametrize("share", [0.05, 0.01, 0])
@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_one_bad_record_is_counted_and_named_or_refused(
    tmp_path, tokenizer_folder, kind, share, capsys
):
    """1 of 41 records is within the default share."""
    reason = BAD_RECORDS[kind][1]

    def check(report: str) -> None:
        if share:
            assert f"1 of {GOOD + 1} records cannot be used:" in report
        assert f"a.jsonl, line {AT}: " in report and reason in report

    def by_prepare(path: str) -> str:
        config = config_of(tmp_path, path, tokenizer_folder, share)
        prepare(config)
        source = Manifest.load(Path(config.folder)).sources["a"]
        assert (source.read, source.documents, source.dropped["bad"]) == (GOOD + 1, GOOD, 1)
        return describe_data(Path(config.folder))

    def by_tuning(load, path: str) -> str:
        sources = {"a": InstructionSource(files=(path,))}
        found = load(InstructionConfig(heldout_fraction=0, sources=sources, max_bad_share=share))
        assert len(found.train["a"]) == GOOD
        return "\n".join(found.warnings)

    question = {"instruction": "Why?", "output": "so"}
    pair = {"prompt": "Why?", "chosen": "so", "rejected": "no"}
    commands = {
        "prepare": lambda: by_prepare(with_bad_record(tmp_path, "a.jsonl", "text", {}, kind)),
        "sft": lambda: by_tuning(
            load_conversations, with_bad_record(tmp_path, "a.jsonl", "output", question, kind)
        ),
        "dpo": lambda: by_tuning(
            load_preferences, with_bad_record(tmp_path, "a.jsonl", "chosen", pair, kind)
        ),
    }
    for command in commands.values():
        if share == 0.05:
            check(command())
        else:
            with pytest.raises(ValueError, match="line") as error:
                command()
            check(str(error.value))


@pytest.mark.parametrize("kind", BAD_RECORDS)
def test_tokenizer_training_and_evaluation_name_a_bad_record(tmp_path, kind, capsys):
    path = with_bad_record(tmp_path, "a.jsonl", "text", {}, kind)
    tokenizer_command.train_command((path,), tmp_path / "tokenizer", vocab_size=262)
    assert f"a.jsonl, line {AT}: " in capsys.readouterr().err
    # a missed item would be trained on, or not be evaluated: none may be bad
    if kind != "another key":  # every string is an item, whatever its key
        items = {"text": " ".join(f"word{n}" for n in range(14))}
        path = with_bad_record(tmp_path, "b.jsonl", "text", items, kind)
        if "not" in BAD_RECORDS[kind][1]:
            with pytest.raises(ValueError, match=rf"b\.jsonl, line {AT}: "):
                DecontaminationFilter([Path(path)])
    questions = {"query": "Why?", "choices": ["a", "b"], "gold": 0}
    with pytest.raises(ValueError, match=rf"c\.jsonl, line {AT}: "):
        load_tasks([], [f"mine={with_bad_record(tmp_path, 'c.jsonl', 'query', questions, kind)}"])


def test_documents_without_text_are_counted_and_never_refused(tmp_path, make, prepared):
    config = make(a=[*numbered(0, 20), *["", " \n"] * 20, "last"], heldout=0, max_bad_share=0)
    path = Path(config.sources["a"].files[0], "a.jsonl")
    path.write_text(path.read_text() + '{"text": null}\n')
    assert len(prepared(config).training_documents("a")) == 21
    source = Manifest.load(Path(config.folder)).sources["a"]
    assert (source.read, source.dropped["empty"], source.dropped["bad"]) == (62, 41, 0)


@pytest.mark.slow
def test_bad_records_are_the_same_for_every_number_of_workers_and_ranks(
    tmp_path, make, tree, small_tasks, monkeypatch
):
    """Bad records, a cut archive and skipped files: the manifest is the same byte for byte."""
    config = make(a=parts(numbered(0, 400), 5), shard_tokens=1_000)
    folder = Path(config.sources["a"].files[0])
    for number, path in enumerate(sorted(folder.iterdir())):
        lines = path.read_text().splitlines(keepends=True)
        lines.insert(7 + number, '{"text": "a\tb"}\n')
        path.write_text("".join(lines))
    (folder / "cut.jsonl.gz").write_bytes(b"\x1f\x8b\x08")
    (folder / ".DS_Store").write_bytes(b"Bud1")
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals/items.txt").write_text(" ".join(f"word{n}" for n in range(14)))
    (tmp_path / "evals/._items.txt").write_bytes(b"Mac OS X")
    config = replace(config, decontaminate=("evals/",))
    monkeypatch.chdir(tmp_path)
    trees = []
    for workers in (1, 3):
        each = replace(config, folder=str(tmp_path / f"{workers}"), workers=workers)
        prepare(each)
        trees.append(tree(each.folder))
    scaled = replace(config, folder=str(tmp_path / "scaled"))
    ClusterPreparation(scaled, "local", tasks=3, workers=1, logs=tmp_path / "logs").run()
    trees.append(tree(scaled.folder))
    assert trees[0] == trees[1] == trees[2]
    manifest = Manifest.load(tmp_path / "1")
    assert manifest.sources["a"].dropped["bad"] == 6
    skipped = {"a": [".DS_Store (hidden)"], "data.decontaminate": ["._items.txt (hidden)"]}
    assert manifest.skipped == skipped
    report = describe_data(tmp_path / "1")
    assert (
        "6 of 406 records cannot be used:" in report and "1 left out: .DS_Store (hidden)" in report
    )
    assert "cut.jsonl.gz: it is damaged" in report and "line 8: it is not JSON" in report


def test_too_many_bad_records_are_refused_until_corrected_or_allowed(
    tmp_path, make, tree, small_tasks
):
    config = make(a=parts(numbered(0, 400), 4), max_bad_share=0.1)
    prepare(replace(config, folder=str(tmp_path / "complete")))
    name = Manifest.load(tmp_path / "complete").plan.sources["a"].tasks[2][0].name
    path = Path(config.sources["a"].files[0], name)
    good = path.read_text()
    path.write_text(good.replace('"text"', '"body"', 60))
    with pytest.raises(ValueError, match=r"60 of 300 records cannot be used(?s:.*)At most 0.1 "):
        prepare(config)
    path.write_text(good)
    prepare(config)
    assert tree(config.folder) == tree(tmp_path / "complete")
    # or allowed by a larger share, in a folder that was started with the bad file
    path.write_text(good.replace('"text"', '"body"', 60))
    other = replace(config, folder=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="60 of 300 records"):
        prepare(other)
    prepare(replace(other, max_bad_share=0.2))
    assert Manifest.load(tmp_path / "other").sources["a"].dropped["bad"] == 60
