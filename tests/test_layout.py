"""The source tree: unique module names, short files, and a complete architecture page."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import SLOW_PATHS

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src/gnano").rglob("*.py"))
MODULES = [path for path in SOURCES if path.stem not in ("__init__", "__main__")]


def test_no_module_name_occurs_twice():
    counts = Counter(path.stem for path in MODULES)
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_file_is_longer_than_350_lines():
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}


def test_the_slow_test_paths_exist():
    assert [path for path in SLOW_PATHS if not (ROOT / "tests" / path).exists()] == []


def test_every_module_has_one_line_in_the_architecture_page():
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    rows = (line.split("`")[1] for line in page.splitlines() if line.startswith("| `"))
    listed = Counter(name for name in rows if name.endswith(".py"))
    wanted = {str(path.relative_to(ROOT / "src/gnano")) for path in MODULES}
    assert listed == Counter(wanted)


def test_names_in_the_architecture_page_exist():
    """A reader who follows a recipe there must find each function and class that it names."""
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    source = "".join(path.read_text("utf-8") for path in MODULES)
    dotted = re.findall(r"`([A-Za-z_]+(?:\.[A-Za-z_]+)*)(?:\([^`]*\))?`", page)
    names = {name.rpartition(".")[2] for name in dotted}
    code = {name for name in names if "_" in name or re.search("[a-z][A-Z]", name)}
    assert len(code) > 50
    assert sorted(name for name in code if not re.search(rf"\b{name}\b", source)) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_docstrings_are_statements(path):
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [
        ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)
    ]
    first = [docstring.split("\n\n")[0] for docstring in found]
    assert [docstring for docstring in first if docstring.rstrip().endswith("?")] == []
