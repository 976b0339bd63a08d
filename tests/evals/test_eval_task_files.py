"""Items are loaded from files of any format and from the Hub."""

import gzip
import io
import json

import pytest
from tests.data.hf_hub.hub_server import Hub, point_client_to
from tests.evals.conftest import made_items

from gnano.evals.eval_tasks import load_tasks

ROWS = [
    {"query": f"Question: {n}?", "choices": [f"a{n}", f"b{n}"], "gold": n % 2} for n in range(20)
]


def parquet(rows):
    pa, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    buffer = io.BytesIO()
    writer.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "piqa_small.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    return path


def test_task_of_a_file_comes_from_its_name_or_its_prefix(file):
    (known,) = load_tasks([], [str(file)])
    (mine,) = load_tasks([], [f"mine={file}"])
    assert (known.task, known.title, mine.task, mine.title) == ("piqa", "PIQA", "mine", "mine")
    assert known.items[0].contexts == ("Question: 0?\nAnswer:",)
    assert mine.items[0].contexts == ("Question: 0?",)
    assert len(known.items) == len(mine.items) == 20


def test_all_formats_give_the_same_items(file, tmp_path):
    packed = tmp_path / "piqa.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    listed = tmp_path / "piqa.json"
    listed.write_text(json.dumps(ROWS))
    columns = tmp_path / "piqa.parquet"
    columns.write_bytes(parquet(ROWS))
    tasks = [load_tasks([], [str(path)])[0] for path in (file, packed, listed, columns)]
    assert all(task == tasks[0] for task in tasks)


def test_limit_takes_evenly_spaced_items(file):
    (task,) = load_tasks([], [str(file)], limit=4)
    assert [item.answers[0] for item in task.items] == ["a0", "a5", "a10", "a15"]
    assert len(load_tasks([], [str(file)], limit=99)[0].items) == 20


def test_examples_precede_each_item_except_itself(file):
    (task,) = load_tasks([], [str(file)], shots=2)
    solved = [f"Question: {n}?\nAnswer: {'ab'[n % 2]}{n}\n\n" for n in range(3)]
    assert task.items[9].contexts == (f"{solved[0]}{solved[1]}Question: 9?\nAnswer:",)
    assert task.items[0].contexts == (f"{solved[1]}{solved[2]}Question: 0?\nAnswer:",)
    assert task.items[1].contexts == (f"{solved[0]}{solved[2]}Question: 1?\nAnswer:",)


@pytest.mark.parametrize(
    ("tasks", "files", "message"),
    [
        (["helaswag"], [], "no task 'helaswag'"),
        ([], ["questions.jsonl"], "name of its task"),
        ([], ["piqa_none.jsonl"], "piqa_none.jsonl"),
    ],
)
def test_missing_tasks_and_files_are_named(tasks, files, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=message):
        load_tasks(tasks, files)


def test_invalid_item_is_an_error_with_file_and_line(file):
    rows = [json.dumps(row) for row in ROWS]
    rows[6] = json.dumps({**ROWS[6], "gold": 7})
    file.write_text("\n".join(rows))
    with pytest.raises(
        ValueError, match=r"piqa_small.jsonl, line 7: the right answer is number 7 of 2"
    ):
        load_tasks([], [str(file)])


def test_more_examples_than_items_are_an_error(file):
    with pytest.raises(ValueError, match="too few for 20 shots"):
        load_tasks([], [str(file)], shots=20)


def test_generated_items_are_different_and_have_every_gold():
    items = made_items()
    assert len(set(items)) == len(items) and {item.gold for item in items} == {0, 1, 2, 3}


ARC = {
    "question": "Which is a gas?",
    "choices": {"text": ["iron", "helium"], "label": ["A", "B"]},
    "answerKey": "B",
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with two datasets in its layouts: by configuration and by folder."""
    with Hub() as served:
        point_client_to(served, monkeypatch, tmp_path / "home")
        splits = ("train", "test")
        arc = {
            f"ARC-Easy/{split}-00000-of-00001.parquet": parquet(
                [{**ARC, "question": f"Which, {number}.{n}?"} for n in range(5)]
            )
            for number, split in enumerate(splits)
        }
        files = [{"split": split, "path": f"ARC-Easy/{split}-*"} for split in splits]
        served.add("allenai/ai2_arc", arc, [{"config_name": "ARC-Easy", "data_files": files}])
        texts = [f"He opened the door, {n} times, and saw the dog" for n in range(3)]
        last = parquet([{"text": text} for text in texts])
        served.add("EleutherAI/lambada_openai", {"default/test/0000.parquet": last})
        yield served


def test_hub_items_come_from_the_configured_split_and_are_cached(hub, tmp_path):
    easy, cloze = load_tasks(["arc_easy", "lambada"], cache_dir=tmp_path / "here")
    assert [item.contexts[0] for item in easy.items] == [
        f"Question: Which, 1.{n}?\nAnswer:" for n in range(5)
    ]
    assert cloze.items[2].choices == [("He opened the door, 2 times, and saw the", " dog")]
    num_requests = len(hub.requests)
    assert load_tasks(["arc_easy", "lambada"], cache_dir=tmp_path / "here") == [easy, cloze]
    assert len(hub.requests) == num_requests


def test_examples_are_the_first_of_the_training_split(hub, tmp_path):
    (task,) = load_tasks(["arc_easy"], shots=2, cache_dir=tmp_path / "here")
    head = "".join(f"Question: Which, 0.{n}?\nAnswer: helium\n\n" for n in range(2))
    assert task.items[4].contexts == (f"{head}Question: Which, 1.4?\nAnswer:",)


def test_task_missing_on_the_hub_is_named(hub, tmp_path):
    with pytest.raises((ValueError, OSError), match="baber/piqa"):
        load_tasks(["piqa"], cache_dir=tmp_path / "here")
