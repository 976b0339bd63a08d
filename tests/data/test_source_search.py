"""Every version of Python finds the same files, and skipped files are listed."""

import os
from pathlib import Path

import pytest

from gnano.data.source_files import FileSearchResult, find_files


@pytest.fixture
def place(file, tmp_path, monkeypatch):
    """Return the current folder with some files; its parent is the home folder."""
    for name in "b.txt", "a.txt", "deep/er/c.txt", "deep/d.md", "odd [1].txt":
        file(f"place/{name}", name)
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "place"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a.txt", ["a.txt"]),
        ("*.txt", ["a.txt", "b.txt", "odd [1].txt"]),
        ("[ab].txt", ["a.txt", "b.txt"]),
        ("odd [1].txt", ["odd [1].txt"]),
        ("deep", ["deep/d.md", "deep/er/c.txt"]),
        ("deep/", ["deep/d.md", "deep/er/c.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "deep/er/c.txt", "odd [1].txt"]),
        ("d*", None),
        (".", ["a.txt", "b.txt", "deep/d.md", "deep/er/c.txt", "odd [1].txt"]),
    ],
)
@pytest.mark.parametrize("start", ["", "./", "{place}/", "~/place/", "../place/"])
def test_paths_globs_and_folders_find_their_files(place, start, pattern, names):
    given = start.format(place=place) + pattern
    if names is None:  # only a folder matches
        with pytest.raises(FileNotFoundError):
            find_files((given,))
        return
    found = find_files((given,)).paths
    assert [os.path.relpath(path, place) for path in found] == names


def test_files_are_sorted_and_each_is_found_once(place):
    found = find_files(("b.txt", "deep", "*.txt", "./a.txt", "deep/d.md")).paths
    names = ["a.txt", "b.txt", "deep/d.md", "deep/er/c.txt", "odd [1].txt"]
    assert found == [Path(name) for name in names]


def test_a_file_with_several_paths_is_found_once_by_the_first(place):
    (place / "link").symlink_to(place / "deep")
    (place / "c.link").symlink_to("deep/er/c.txt")
    absolute = str(place / "deep/er/c.txt")
    ways = (absolute, "deep/er/c.txt", "deep/../deep/er/c.txt", "link/er/c.txt", "c.link")
    for first in ways:
        assert find_files((first, *ways)).paths == [Path(first)]
        assert Path(first) in find_files((first, *ways, "deep", "**/*")).paths


def test_of_a_file_and_its_link_the_first_in_order_is_used(place):
    for name in "0.txt", "z.txt":
        (place / name).symlink_to("a.txt")
    assert find_files(("*.txt",)).paths == [Path(n) for n in ("0.txt", "b.txt", "odd [1].txt")]


@pytest.mark.parametrize("pattern", ["y**z", "**.txt", "deep/***", "{place}/d**/c.txt"])
def test_an_invalid_pattern_is_explained(place, pattern):
    given = pattern.format(place=place)
    with pytest.raises(
        ValueError, match=r"is not a valid pattern: \*\* .* write \* instead\.$"
    ) as error:
        find_files(("a.txt", given))
    assert repr(given) in str(error.value)


@pytest.mark.parametrize("pattern", ["nothing.txt", "*.csv", "{place}/nothing/*.txt", "~/nothing"])
def test_a_pattern_without_matches_is_named(place, pattern):
    given = pattern.format(place=place)
    with pytest.raises(FileNotFoundError, match="No file matches") as error:
        find_files(("a.txt", given))
    assert repr(given) in str(error.value)


def search(place: Path, pattern: str) -> tuple[list[str], dict[str, str]]:
    """Return the names of the found files, and the skipped ones with the reason."""
    found: FileSearchResult = find_files((pattern,))
    skipped = {os.path.relpath(path, place): why for path, why in found.skipped.items()}
    return [os.path.relpath(path, place) for path in found.paths], skipped


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("deep/**", ["deep/d.md", "deep/er/c.txt"]),  # pathlib's own: none before Python 3.13
        ("**", ["a.txt", "b.txt", "deep/d.md", "deep/er/c.txt", "odd [1].txt"]),
        ("**/**/*.txt", ["a.txt", "b.txt", "deep/er/c.txt", "odd [1].txt"]),
        ("deep/**/c.txt", ["deep/er/c.txt"]),
        ("**/er/*", ["deep/er/c.txt"]),
        ("*/*/c.*", ["deep/er/c.txt"]),
        ("*/*.md", ["deep/d.md"]),
        ("[!a].txt", ["b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
    ],
)
def test_two_stars_match_any_folders_and_at_the_end_everything(place, pattern, names):
    assert search(place, pattern) == (names, {})


def test_a_folder_name_with_brackets_may_precede_a_glob(place, file):
    file("place/[raw] v2/x.txt", "x")
    assert search(place, "[raw] v2/*.txt")[0] == ["[raw] v2/x.txt"]


@pytest.mark.parametrize("pattern", [".", "{place}", "**", "**/*.txt", "*/*.txt"])
def test_linked_folders_are_followed_once_after_real_ones(place, file, tmp_path, pattern):
    file("store/x.txt", "x")
    file("store/y/z.txt", "z")
    (place / "0 before").symlink_to("deep")  # another path to files that are found anyway
    (place / "more").symlink_to("../store")
    (tmp_path / "store" / "loop").symlink_to("../place")
    (place / "deep" / "round").symlink_to("..")
    names, skipped = search(place, pattern.format(place=place))
    real = [name for name in names if not name.startswith("more/")]
    below = {".": 5, "{place}": 5, "**": 5, "**/*.txt": 4, "*/*.txt": 3}
    assert "more/x.txt" in names and len(names) == len(set(names)) and not skipped
    if pattern != "*/*.txt":  # it reaches deep/er/c.txt and others only by links
        assert "more/y/z.txt" in names and len(real) == below[pattern]
        assert {"deep/er/c.txt", "a.txt"} <= set(real)


LEFT_BY_OTHERS = {
    "._a.jsonl": b"\x00\x05\x16\x07Mac OS X",
    ".DS_Store": b"Bud1",
    ".a.txt.swp": b"b0VIM 9.0",
    ".git/config": b"[core]",
    "a.txt~": b"an editor's copy",
    "#a.txt#": b"another's",
    "__pycache__/m.pyc": b"\xa7\r\r\n",
    "picture.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00\x00\x00\x01\x00",
    "deep/noise": bytes(range(256)) * 40,
    "deep/.hidden": b"text",
}


@pytest.mark.parametrize("pattern", [".", "**", "{place}/**/*", "../place/"])
def test_leftovers_of_programs_are_skipped_and_listed(place, file, pattern):
    for name, content in LEFT_BY_OTHERS.items():
        file(f"place/{name}", content)
    (place / "broken.txt").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    names, skipped = search(place, pattern.format(place=place))
    assert names == ["a.txt", "b.txt", "deep/d.md", "deep/er/c.txt", "odd [1].txt"]
    folders = {"__pycache__/m.pyc": "__pycache__", ".git/config": ".git"}  # listed once
    left = {folders.get(name, name) for name in LEFT_BY_OTHERS}
    assert skipped.keys() == {*left, "broken.txt", "pipe"}
    assert skipped["picture.png"] == skipped["deep/noise"] == "binary"
    assert skipped["broken.txt"] == "broken link" and skipped[".DS_Store"] == "hidden"
    notice = find_files((pattern.format(place=place),)).format_skipped()
    assert notice.startswith("12 left out: ") and notice.endswith("and 7 more")


def test_a_file_that_is_named_is_not_skipped(place, file):
    for name in "place/.notes/x.txt", "place/.plan", "place/old.txt~":
        file(name, "text")
    for given, names in [
        (".notes", [".notes/x.txt"]),
        (".notes/*", [".notes/x.txt"]),
        (".pl*", [".plan"]),
        (".plan", [".plan"]),
        ("old.txt~", ["old.txt~"]),
    ]:
        assert search(place, given) == (names, {})
    assert ".plan" not in find_files((".", ".plan")).format_skipped()


@pytest.mark.parametrize("name", ["picture.png", "._a.jsonl", "deep/noise"])
def test_a_binary_file_that_is_named_is_refused(place, file, name):
    file(f"place/{name}", LEFT_BY_OTHERS[name])
    with pytest.raises(ValueError, match=f"^{name} is a binary file, not text: name files of"):
        find_files((name,))


def test_a_folder_of_skipped_files_only_is_explained(place, file):
    file("place/empty/.DS_Store", b"Bud1")
    with pytest.raises(FileNotFoundError, match=r"No file matches .*1 left out: .*DS_Store"):
        find_files(("empty",))
