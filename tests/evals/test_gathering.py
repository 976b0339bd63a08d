"""Items come from the files that are named, in one way whatever their format."""

import gzip
import json

import pytest
from tests.evals.conftest import made_items

from gnano.evals import gather

ROWS = [
    {"query": f"Question: {n}?", "choices": [f"a{n}", f"b{n}"], "gold": n % 2} for n in range(20)
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "piqa_small.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    return path


def test_a_file_says_its_task_by_its_name_or_is_given_one(file):
    (known,) = gather([], [str(file)])
    (mine,) = gather([], [f"mine={file}"])
    assert (known.task, known.title, mine.task, mine.title) == ("piqa", "PIQA", "mine", "mine")
    assert known.items[0].contexts == ("Question: 0?\nAnswer:",)
    assert mine.items[0].contexts == ("Question: 0?",)
    assert len(known.items) == len(mine.items) == 20


def test_formats_make_no_difference(file, tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    packed = tmp_path / "piqa.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    listed = tmp_path / "piqa.json"
    listed.write_text(json.dumps(ROWS))
    columns = tmp_path / "piqa.parquet"
    parquet.write_table(pa.Table.from_pylist(ROWS), columns)
    sheets = [gather([], [str(path)])[0] for path in (file, packed, listed, columns)]
    assert all(sheet == sheets[0] for sheet in sheets)


def test_a_limit_takes_items_from_all_over_the_task(file):
    (sheet,) = gather([], [str(file)], limit=4)
    assert [item.answers[0] for item in sheet.items] == ["a0", "a5", "a10", "a15"]
    assert sheet.whole == 20
    assert len(gather([], [str(file)], limit=99)[0].items) == 20


def test_examples_stand_before_each_item_and_none_before_itself(file):
    (sheet,) = gather([], [str(file)], shots=2)
    solved = [f"Question: {n}?\nAnswer: {'ab'[n % 2]}{n}\n\n" for n in range(3)]
    assert sheet.items[9].contexts == (f"{solved[0]}{solved[1]}Question: 9?\nAnswer:",)
    assert sheet.items[0].contexts == (f"{solved[1]}{solved[2]}Question: 0?\nAnswer:",)
    assert sheet.items[1].contexts == (f"{solved[0]}{solved[2]}Question: 1?\nAnswer:",)


@pytest.mark.parametrize(
    ("tasks", "files", "wrong"),
    [
        (["helaswag"], [], "no task 'helaswag'"),
        ([], ["questions.jsonl"], "which task"),
        ([], ["piqa_none.jsonl"], "piqa_none.jsonl"),
    ],
)
def test_what_cannot_be_had_is_named(tasks, files, wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=wrong):
        gather(tasks, files)


def test_a_bad_item_is_named_with_its_file_and_line_and_none_is_left_out_in_silence(file):
    rows = [json.dumps(row) for row in ROWS]
    rows[6] = json.dumps({**ROWS[6], "gold": 7})
    file.write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"piqa_small.jsonl, 7: the right answer is number 7 of 2"):
        gather([], [str(file)])


def test_more_examples_than_items_are_refused(file):
    with pytest.raises(ValueError, match="too few for 20 shots"):
        gather([], [str(file)], shots=20)


def test_made_items_are_what_the_other_tests_take_them_for():
    items = made_items()
    assert len(set(items)) == len(items) and {item.gold for item in items} == {0, 1, 2, 3}
