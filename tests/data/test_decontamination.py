"""A document is contaminated exactly if it shares 13 words with an evaluation item."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from tests.data.test_ngram_overlap import grams

from gnano.data import ngram_overlap
from gnano.data.ngram_overlap import NGRAM_WORDS, DecontaminationFilter

EVALS = Path(__file__).parents[3] / "shared/data/evals"

ITEM = (
    "In 1912 the old café's keeper (a widow) sold 3 maps; nobody\nknew that "
    "“the third” would lead anyone to Œuf_Island."
)
ITEM_WORDS = 22


def items_file(folder, items):
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps({"text": item}) + "\n" for item in items))
    return path


@pytest.fixture
def make_filter(tmp_path):
    """make_filter(*items): return the filter of a file with these items."""
    return lambda *items: DecontaminationFilter([items_file(tmp_path, items)])


PROGRAM = """
import json, sys
from pathlib import Path
from gnano.data.ngram_overlap import DecontaminationFilter
items, documents = map(Path, sys.argv[1:])
found = DecontaminationFilter([items])
print([*map(found.is_contaminated, json.loads(documents.read_text()))])
"""


def test_every_process_gives_the_same_answer(tmp_path):
    items = [" ".join(str(n * k % 97) for n in range(40)) for k in range(1, 40)]
    documents = [" ".join(str(n * k % 97) for n in range(5, 30)) for k in range(1, 90)]
    (tmp_path / "documents.json").write_text(json.dumps(documents))
    arguments = [str(items_file(tmp_path, items)), str(tmp_path / "documents.json")]
    answers = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        for seed in "12"
    ]
    known = set().union(*map(grams, items))
    truth = [bool(grams(document) & known) for document in documents]
    assert json.loads(answers[0].lower()) == json.loads(answers[1].lower()) == truth
    assert True in truth
    assert False in truth


@pytest.mark.parametrize(
    "text",
    [
        ITEM,
        ITEM.upper(),
        re.sub(r"\W+", " ", ITEM),
        re.sub(r"\W+", "\n\t** ", ITEM),
        " ".join(ITEM.split()[2:17]),
    ],
)
def test_case_punctuation_and_line_breaks_are_ignored(make_filter, text):
    found = make_filter("Some other item, not in there.", ITEM)
    for before, after in ("", ""), ("word " * 500, " more" * 500), ("(", ")"):
        assert found.is_contaminated(before + text + after)


def test_twelve_shared_words_are_not_enough(make_filter):
    words = re.findall(r"\w+", ITEM)
    assert len(words) == ITEM_WORDS
    found = make_filter(ITEM)
    for start in range(ITEM_WORDS - NGRAM_WORDS + 1):
        shared = words[start : start + NGRAM_WORDS]
        assert found.is_contaminated(" ".join(["x", *shared, "y"]))
        for text in (["x", *shared[1:], "y"], ["x", *shared[:-1], "y"], shared[1:]):
            assert not found.is_contaminated(" ".join(text))
        assert not found.is_contaminated(" ".join([*shared[:6], "x", *shared[6:]]))


@pytest.mark.parametrize("text", ["", "one", "?!", "word " * 11, "word " * 5_000])
def test_clean_documents_of_any_length_pass(make_filter, text):
    assert not make_filter(ITEM).is_contaminated(text)


def test_runs_do_not_cross_item_boundaries(make_filter):
    found = make_filter("a b c d e f g h i j k l m", "n o p q r s t u v w x y z")
    assert not found.is_contaminated("b c d e f g h i j k l m n o p q r s t u v w x y")


def test_short_items_are_not_searched_for(make_filter):
    twelve = "a b c d e f g h i j k l"
    found = make_filter(twelve, ITEM)
    assert not found.is_contaminated(twelve)
    assert not found.is_contaminated(f"{twelve} and then something else")


def test_without_files_every_document_passes():
    assert not DecontaminationFilter([]).is_contaminated(ITEM)


def numbered(n):
    return " ".join(f"word{n}" for n in range(100 * n, 100 * n + 20))


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
NESTED = {
    "question": numbered(0),
    "choices": {"text": [numbered(1), numbered(2)], "label": ["A", None, 1.5, True]},
    numbered(9): [[[numbered(3)]]],
}


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".json", ".txt", ".md"])
def test_every_string_of_every_file_form_is_searched_for(tmp_path, ending, packed):
    content = {
        ".json": json.dumps([NESTED, numbered(4)], indent=1),
        ".jsonl": f"{json.dumps(NESTED)}\n\n{json.dumps(numbered(4))}\n",
    }
    content[".ndjson"] = content[".jsonl"]
    text = content.get(ending) or "\n\n".join(map(numbered, range(5)))
    path = tmp_path / f"items{ending}{packed}"
    path.write_bytes(PACK[packed](text.encode()))
    found = DecontaminationFilter([path])
    assert all(found.is_contaminated(f"x {numbered(n)} y") for n in range(5))
    assert not found.is_contaminated(numbered(9))


def test_all_columns_of_parquet_are_searched_for(tmp_path):
    path = tmp_path / "items.parquet"
    rows = [{"id": 1, "query": numbered(0), "choices": [numbered(1), None]}, {"query": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found = DecontaminationFilter([path])
    assert all(found.is_contaminated(numbered(n)) for n in range(2))


def test_several_files_are_searched_for_together(tmp_path):
    paths = [tmp_path / f"{n}.txt" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_text(numbered(n))
    found = DecontaminationFilter(paths)
    assert [found.is_contaminated(numbered(n)) for n in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": "b"}\n{"a": "b\n', r"a\.jsonl, line 2: it is not JSON .*\.$"),
        ("a.json", '[{"a":\n "b}]', r"a\.json, line 1: it is not JSON .* line 2 .*\.$"),
        ("a.json", "[" * 100_000, r"a\.json, line 1: it is not JSON .*\.$"),
        ("a.txt.gz", "not packed", r"a\.txt\.gz: it is damaged"),
        ("a.parquet", "", r"a\.parquet: it is not a readable Parquet file"),
        ("a.jsonl", '{"a": "too short"}\n', r"a\.jsonl holds no text of 13 words"),
        ("a.txt", "", r"a\.txt holds no text of 13 words"),
    ],
)
def test_an_unusable_file_is_named(tmp_path, name, content, message):
    good, bad = tmp_path / "good.txt", tmp_path / name
    good.write_text(ITEM)
    bad.write_text(content)
    with pytest.raises(ValueError, match=message):
        DecontaminationFilter([good, bad])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no evaluation file .*nothing\.jsonl"):
        DecontaminationFilter([tmp_path / "nothing.jsonl"])


@pytest.mark.slow
@pytest.mark.skipif(not EVALS.is_dir(), reason=f"the evaluations are not in {EVALS}")
def test_real_evaluation_items_are_found_in_longer_texts():
    paths = sorted(EVALS.glob("*.jsonl"))
    found = DecontaminationFilter(paths)
    planted = 0
    for path in paths:
        for line in path.read_text().splitlines()[::20]:
            for value in json.loads(line).values():
                for item in value if isinstance(value, list) else [value]:
                    if isinstance(item, str) and grams(item):
                        planted += 1
                        assert found.is_contaminated(
                            f"Before it: {item.upper()}... and after it."
                        ), item
    assert planted > 500
    assert not found.is_contaminated(" ".join(Path(ngram_overlap.__file__).read_text().split()))
