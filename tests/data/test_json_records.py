"""Records are recognized by content, whatever the file's name and compression.

`FORMS` has every form of the same records, and every command that reads records is tested: none may
take them for plain text.
"""

import csv
import gzip
import io
import json
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis.strategies import lists, text
from tests.data.conftest import PACKED

from gnano.cli import tokenizer as tokenizer_command
from gnano.config.data_config import SourceConfig
from gnano.data.ngram_overlap import DecontaminationFilter
from gnano.data.readers import detect_form, read_records, read_texts
from gnano.data.sft.conversations import parse_conversation
from gnano.data.sft.record_loading import read_record_files
from gnano.data.text_files import BadRecordCounter
from gnano.evals.eval_tasks import load_tasks
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.tokenizer.train_bpe import train_bpe

TEXTS = [f"Grüße {n}, 漢字 🙂 {'and some more words ' * 5}\nend {n}" for n in range(40)]


def lines(records, end="\n", **options):
    return "".join(json.dumps(record, **options) + end for record in records).encode()


def table(records, delimiter=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def parquet(records):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), out)
    return out.getvalue()


def listed(records, **options):
    return json.dumps(records, **options).encode()


def marked(records):
    return b"\xef\xbb\xbf\r\n" + lines(records, "\r\n")


FORMS = {
    "a.jsonl": lines,
    "a.json": lines,
    "A.JSONL": lines,
    "a.jl": lines,
    "a.jsonlines": lines,
    "a.ndjson": lines,
    "windows.json": marked,
    "part-00000": lines,  # as Spark names them
    "a.txt": lines,
    "a.csv": table,
    "A.TSV": lambda records: table(records, "\t"),
    "list.json": listed,
    "list.jsonl": listed,
    "pretty.json": lambda records: listed(records, indent=1, ensure_ascii=False),
    "a.parquet": parquet,
    "a.pq": parquet,
    "two.jsonl": lambda records: lines(records[:9]) + b"\xef\xbb\xbf" + lines(records[9:]),
}
ALL_PACKED = PACKED | {".GZ": gzip.compress}


def write_form(file, name, records, packing=""):
    return file(f"x/{name}{packing}", ALL_PACKED[packing](FORMS[name](records)))


def values_of(path):
    return [record.value for record in BadRecordCounter(strict=True).filter(read_records(path))]


@pytest.mark.parametrize("packing", ALL_PACKED)
@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_records(file, name, packing):
    if packing and name in ("a.parquet", "a.pq"):
        pytest.skip("Parquet is packed inside")
    path = write_form(
        file, name, [{"text": each, "id": f"{n}"} for n, each in enumerate(TEXTS)], packing
    )
    assert [value["text"] for value in values_of(path)] == TEXTS
    assert list(read_texts(path, "text")) == TEXTS
    assert detect_form(path) != "text"


@pytest.mark.parametrize("name", FORMS)
def test_every_command_reads_every_form(file, tmp_path, name, capsys):
    path = str(
        write_form(file, name, [{"body": each, "id": f"{n}"} for n, each in enumerate(TEXTS)])
    )
    # tokenizer train
    out = tmp_path / "tokenizer"
    tokenizer_command.train_command((path,), out, vocab_size=300, column="body")
    assert load_tokenizer(out).fingerprint == train_bpe(TEXTS, 300).fingerprint
    # sft, and with it dpo, smoke and chat's records
    questions = [{"instruction": each, "output": "yes"} for each in TEXTS]
    conversations = read_record_files(
        [str(write_form(file, name, questions))], parse_conversation
    ).records
    assert [one.turns[0].content for one in conversations] == TEXTS
    # decontamination and its search for items
    assert DecontaminationFilter([write_form(file, name, questions)]).is_contaminated(
        f"so {TEXTS[17]} it is"
    )
    # eval --files
    if name not in ("a.csv", "A.TSV"):  # a list of choices has no place in a field
        items = [{"query": each, "choices": ["a", "b"], "gold": 1} for each in TEXTS]
        (sheet,) = load_tasks([], [f"mine={write_form(file, name, items)}"])
        assert len(sheet.items) == len(TEXTS)


@pytest.mark.parametrize("name", ["a.json", "part-00000", "a.csv", "pretty.json", "a.pq"])
def test_prepare_trains_on_the_column_of_every_form(file, make, prepared, name):
    path = write_form(file, name, [{"body": each, "url": "https://x"} for each in TEXTS])
    config = make(a=["to be replaced"], heldout=0)
    source = SourceConfig(files=(str(path),), column="body")
    assert prepared(replace(config, sources={"a": source})).training_documents("a") == TEXTS


@settings(deadline=None, max_examples=40)
@given(texts=lists(text('a{}[],"\\\n\r\t\u2028\x85\x0c é🙂', min_size=1), min_size=2, max_size=8))
def test_the_content_of_strings_does_not_confuse_a_reader(tmp_path_factory, texts):
    records = [{"text": each} for each in texts]
    for name, write in FORMS.items():
        if name in ("a.csv", "A.TSV"):
            continue  # in a text file every line ends in LF
        path = tmp_path_factory.mktemp("any") / name
        path.write_bytes(write(records))
        assert values_of(path) == records


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", '{"one": "object"}\nand prose about it\n'),
        ("a.md", "[a link](https://x)\n"),
        ("a.py", '{"a": 1}\n[1]\n'),
        ("package.json", '{\n "name": "x",\n "files": [\n  {"a": 1}\n ]\n}\n'),
        ("tsconfig.json", '{\n // a comment\n "strict": true\n}\n'),
        ("notes", "{ braces }\n{ and more }\n"),
    ],
)
def test_text_is_not_taken_for_records(file, name, content):
    assert list(read_texts(file(name, content), "text")) == [content]


def test_one_object_over_several_lines_is_a_record_where_it_has_the_column(file):
    path = file("a.json", json.dumps({"text": "a\nb", "id": 1}, indent=1))
    assert list(read_texts(path, "text")) == ["a\nb"]


@pytest.mark.parametrize("half", [r"\ud83d", r"\uDE42", r"\ud83d\ud83d"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "list.json"])
def test_lone_surrogates_are_replaced_for_every_reader(file, name, half):
    record = (
        f'{{"instruction": "a{half}z", "output": ["x", {{"{half}": "\\ud83d\\ude42 {half}"}}]}}'
    )
    content = f"[{record}]" if name == "list.json" else f"{record}\n{record}\n"
    for value in values_of(file(name, content)):
        text_of_value = json.dumps(value, ensure_ascii=False)
        assert (
            text_of_value.encode().decode() == text_of_value
            and "\ufffd" in text_of_value
            and "🙂" in text_of_value
        )


def test_a_column_is_refused_for_plain_text(file, make, prepared):
    path = str(file("a.txt", "prose\n"))
    config = replace(make(a=["x"]), sources={"a": SourceConfig(files=(path,), column="body")})
    with pytest.raises(ValueError, match=r"column is 'body', but .*a\.txt is plain text"):
        prepared(config)
    with pytest.raises(ValueError, match=r"column is 'body', but .*a\.txt is plain text"):
        tokenizer_command.train_command((path,), file("x", "").parent / "out", column="body")
