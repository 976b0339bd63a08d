"""Files are grouped into tasks by their names and sizes only, wherever they are."""

import shutil

import pytest
from hypothesis import given, settings
from hypothesis.strategies import dictionaries, integers, text
from tests.data.conftest import DEMO_GENERATORS

from gnano.config.data_config import SourceConfig
from gnano.data import source_files
from gnano.data.source_files import FINGERPRINT_BYTES, find_source_files, read_task_documents
from gnano.data.text_files import BadRecordCounter

names = text("abcdef", min_size=1, max_size=6)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("inputs")


def write(folder, sizes):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, size in sizes.items():
        (folder / f"{name}.txt").write_bytes(b"x" * size)
    return SourceConfig(files=(str(folder),))


def names_of(tasks):
    """Return the files' names in order."""
    return [file.name for task in tasks for file in task]


@settings(deadline=None, max_examples=30)
@given(sizes=dictionaries(names, integers(0, 100), min_size=1), small=integers(1, 150))
def test_every_file_is_in_one_task_and_small_ones_share(scratch, sizes, small):
    source = write(scratch / "all", sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_files, "MIN_TASK_BYTES", small)
        tasks = find_source_files(source).tasks
    assert sorted(names_of(tasks)) == sorted(f"{name}.txt" for name in sizes)
    weights = [[file.size for file in task] for task in tasks]
    if sum(sizes.values()) >= small:
        assert all(sum(task) >= small for task in weights)
    else:
        assert len(tasks) == 1
    # each task but the last is full only with its last file
    assert all(sum(task[:-1]) < small for task in weights[:-1])


def test_the_order_is_not_sorted_and_independent_of_the_location(scratch, small_tasks):
    sizes = {f"{n:03}": 5 for n in range(60)}
    here = find_source_files(write(scratch / "here", sizes)).tasks
    there = find_source_files(write(scratch / "far" / "away", sizes)).tasks
    assert here == there
    order = names_of(here)
    early = [int(name[:3]) for name in order[:20]]
    # a budget of a third must not be the first third of the names
    assert min(early) < 20 and max(early) >= 40 and sum(n >= 20 for n in early) >= 5


def test_another_file_does_not_move_the_others(scratch, small_tasks):
    sizes = {f"{n}": 5 for n in range(20)}
    before = names_of(find_source_files(write(scratch / "more", sizes)).tasks)
    after = names_of(find_source_files(write(scratch / "more", sizes | {"new": 5})).tasks)
    assert [name for name in after if name != "new.txt"] == before


def test_names_are_relative_to_the_common_folder(tmp_path, small_tasks, monkeypatch):
    for place in ("x/a.txt", "x/y/b.txt", "x/z/c.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    complete = find_source_files(SourceConfig(files=(str(tmp_path / "x"),)))
    assert sorted(names_of(complete.tasks)) == ["a.txt", "y/b.txt", "z/c.txt"]
    assert complete.root == tmp_path / "x"
    monkeypatch.chdir(tmp_path)
    relative = find_source_files(SourceConfig(files=("x/*.txt", "x/*/*.txt")))
    assert relative == replace_source(complete, relative.source)
    (path,) = relative.task_paths(0, tmp_path / "elsewhere")
    assert path.read_text() == f"x/{relative.tasks[0][0].name}"
    monkeypatch.chdir("/")  # a worker's current folder may differ
    assert path.is_file()


def replace_source(found, source):
    return type(found)(source, found.tasks, found.root, found.commit)


@pytest.mark.parametrize("place", [0, FINGERPRINT_BYTES - 1, -FINGERPRINT_BYTES, -1])
def test_a_byte_at_the_ends_of_a_large_file_changes_its_fingerprint(tmp_path, place):
    path = tmp_path / "a.txt"
    content = bytearray(b"x" * (3 * FINGERPRINT_BYTES))
    path.write_bytes(content)
    source = SourceConfig(files=(str(path),))
    before = find_source_files(source).tasks
    path.touch()
    assert find_source_files(source).tasks == before
    content[place] = ord("y")
    path.write_bytes(content)
    (task,) = find_source_files(source).tasks
    assert task[0].size == before[0][0].size
    assert task[0].fingerprint != before[0][0].fingerprint


def test_many_small_files_do_not_become_many_tasks(scratch, small_tasks, monkeypatch):
    source = write(scratch / "many", {f"{n}": 10 for n in range(100)})
    assert len(find_source_files(source).tasks) == 100
    monkeypatch.setattr(source_files, "MAX_TASKS", 7)
    assert len(find_source_files(source).tasks) <= 7


def test_a_pattern_that_names_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=r"empty|no file"):
        find_source_files(SourceConfig(files=(str(tmp_path / "empty"),)))
    with pytest.raises(ValueError, match="no file"):
        find_source_files(SourceConfig())


@pytest.mark.parametrize("generator", DEMO_GENERATORS)
def test_generated_text_ends_with_the_document_that_fills_its_bytes(generator):
    def texts_of(size):
        found = read_task_documents(
            SourceConfig(kind="generator", generator=generator, max_bytes=size), []
        )
        return [document.text for document in BadRecordCounter().filter(found)]

    texts = texts_of(20_000)
    sizes = [len(text.encode()) for text in texts]
    assert sum(sizes[:-1]) < 20_000 <= sum(sizes)
    more = texts_of(30_000)
    assert more[: len(texts)] == texts
