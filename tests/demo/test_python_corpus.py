import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest

from gnano.config.data_config import SourceConfig
from gnano.data.manifest import is_heldout
from gnano.data.readers import Document
from gnano.data.source_files import read_task_documents
from gnano.demo import python_corpus
from gnano.demo.python_corpus import (
    _find_dependencies,
    _shared_prose,
    identify_installation,
    iter_python_code,
    iter_python_prose,
)

pytestmark = pytest.mark.slow
PROSE, CODE = 500_000, 300_000  # bytes; less prose would be the language reference alone
READING_NEEDS = {"email", "importlib", "pydoc_data", "sysconfig"}  # for READMEs and topics

PROGRAM = f"""
import json, sys
from gnano.config.data_config import SourceConfig
from gnano.data.source_files import read_task_documents
from gnano.demo.python_corpus import identify_installation
def read(name, size):
    path = f"gnano.demo.python_corpus:{{name}}"
    source = SourceConfig(kind="generator", generator=path, max_bytes=size)
    return list(read_task_documents(source, []))
before = set(sys.modules)
found = read("PROSE", {PROSE}), read("CODE", {CODE})
print(json.dumps([*found, sorted(set(sys.modules) - before), identify_installation()]))
"""


@pytest.fixture(scope="module")
def fresh():
    """Prose, code and imported modules of two new processes with different hash seeds."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in "12"
    ]
    outputs = [process.communicate()[0] for process in processes]
    return [json.loads(output) for output in outputs]


@pytest.fixture(scope="module")
def prose(fresh):
    return [Document(*document) for document in fresh[0][0]]


@pytest.fixture(scope="module")
def code(fresh):
    return [Document(*document) for document in fresh[0][1]]


def test_two_processes_read_the_same_text(fresh):
    one, two = fresh
    assert one == two


def test_files_are_read_without_importing_them(fresh, prose, code):
    assert any(document.split_group.startswith(("torch/", "numpy/")) for document in prose)
    read = {d.split_group.removesuffix(".py").replace("/", ".") for d in prose + code}
    for _, _, imported, _ in fresh:
        imported = {name for name in imported if name.split(".")[0] not in READING_NEEDS}
        assert imported.isdisjoint(read)
        roots = {name.split(".")[0] for name in imported}
        assert roots.isdisjoint({"turtle", "antigravity", "this", "tkinter", "idlelib"})
        assert roots.isdisjoint({"torch", "numpy", "sympy", "tokenizers", "tyro"})


def test_a_budget_ends_with_the_document_that_reaches_it(prose, code):
    for found, budget in ((prose, PROSE), (code, CODE)):
        sizes = [len(document.text.encode()) for document in found]
        assert sum(sizes[:-1]) < budget <= sum(sizes)


def test_a_larger_budget_starts_with_the_same_documents(code):
    path = "gnano.demo.python_corpus:CODE"
    fewer = list(
        read_task_documents(SourceConfig(kind="generator", generator=path, max_bytes=CODE // 3), [])
    )
    assert fewer == code[: len(fewer)]
    assert 0 < len(fewer) < len(code)


def test_code_is_valid_files_of_the_standard_library(code):
    library = Path(sysconfig.get_paths()["stdlib"])
    for document in code:
        path = library / document.split_group
        assert path.read_text(encoding="utf-8") == document.text
        assert not {"test", "tests", "site-packages"} & set(path.relative_to(library).parts)
        ast.parse(document.text)


def test_prose_has_the_language_reference_readmes_and_docstrings(prose):
    all_text = "".join(document.text for document in prose)
    assert 'The "try" statement' in all_text
    kinds = Counter(document.split_group.split()[0] for document in prose)
    assert kinds["topic"] > 50
    assert kinds["readme"] > 5


@pytest.fixture
def library(tmp_path, monkeypatch):
    """library({"name.py": source}): the only Python files there are, without dependencies."""

    def no_distribution(name):
        raise metadata.PackageNotFoundError(name)

    def write(files):
        for name, source in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.encode("latin-1"))
        monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
        monkeypatch.setattr(metadata, "distribution", no_distribution)
        for cached in _shared_prose, _find_dependencies:
            cached.cache_clear()
        found = iter_python_prose()
        return [d for d in found if not d.split_group.startswith("topic ")], list(
            iter_python_code()
        )

    yield write
    for cached in _shared_prose, _find_dependencies:
        cached.cache_clear()


ONE, TWO, THREE = (
    f"{n} tells at some length what it is that a reader has before them." for n in "123"
)


def module(*docstrings):
    """Return a module with the first docstring and functions f0, f1 … with the others."""
    first, *others = docstrings
    functions = (f'def f{n}():\n    """{d}"""\n' for n, d in enumerate(others))
    return f'"""{first}"""\n\n' + "\n\n".join(functions)


def test_no_docstring_is_repeated(library):
    prose, _ = library({"a.py": module(ONE, TWO, TWO), "b.py": module(TWO, THREE, ONE)})
    all_text = "".join(document.text for document in prose)
    assert [all_text.count(docstring) for docstring in (ONE, TWO, THREE)] == [1, 1, 1]


def test_docstrings_follow_the_names_they_document(library):
    method = f'    async def f(self):\n        """\n        {TWO}\n        """\n'
    source = f'class C:\n    """{ONE}"""\n\n{method}'
    prose, _ = library({"p/a.py": source, "p/__init__.py": module(THREE)})
    assert sorted(document.text for document in prose) == [
        f"p\n\n{THREE}\n",
        f"p.a.C\n\n{ONE}\n\n\np.a.C.f\n\n{TWO}\n",
    ]


def test_examples_and_tables_are_left_out(library):
    example = ">>> f(1, 2) == {3: [4]}; g(5, 6) == {7: [8]}; h(9, 10) == {11: [12]}  # 13"
    table = "=====  =====  ====== | 1 | 2 | 3 |\n=====  =====  ====== | 4 | 5 | 6 |"
    prose, code = library({"a.py": module("\n\n".join([ONE, example, TWO, table, THREE]))})
    assert [document.text for document in prose] == [f"a\n\n{ONE}\n\n{TWO}\n\n{THREE}\n"]
    assert example in code[0].text


def test_tests_and_installed_packages_are_not_the_library(library):
    names = ["test/a.py", "p/tests/b.py", "site-packages/c.py", "p/d.py"]
    prose, code = library({name: module(ONE + name) for name in names})
    assert [document.split_group for document in prose] == [
        document.split_group for document in code
    ]
    assert [document.split_group for document in code] == ["p/d.py"]


def test_unreadable_files_are_skipped(library):
    prose, code = library(
        {"latin.py": module(ONE + "\xe9"), "broken.py": '"""' + TWO, "good.py": module(THREE)}
    )
    assert [document.split_group for document in prose] == ["good.py"]
    assert "latin.py" not in {document.split_group for document in code}


def test_a_modules_docstrings_and_its_source_are_held_out_together(library):
    files = {f"p/m{n}.py": module(f"{n}: {ONE}", f"{n}: {TWO}") for n in range(40)}
    prose, code = library(files)
    for share in 0.1, 0.5, 0.9:
        heldout = {d.text for d in code if is_heldout(d, share)}
        assert 0 < len(heldout) < len(code) == len(prose) == 40
        for n, source in enumerate(files.values()):
            (document,) = (d for d in prose if f"\n{n}: {TWO}\n" in d.text)
            assert is_heldout(document, share) == (source in heldout)


FILES = {"a.py": module(ONE), "p/b.py": module(TWO, THREE)}


def test_the_identity_does_not_depend_on_place_and_time(library, tmp_path, monkeypatch):
    library(FILES)
    first = identify_installation()
    elsewhere = shutil.copytree(tmp_path, tmp_path.with_name("elsewhere"))
    for path in elsewhere.rglob("*"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(elsewhere)})
    assert identify_installation() == first


def test_another_file_or_another_version_is_another_identity(library, tmp_path, monkeypatch):
    def package(version):
        folder = tmp_path / f"some-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: some\nVersion: {version}\n")
        return metadata.Distribution.at(folder)

    library(FILES)
    found = [identify_installation()]
    for change in {"a.py": module(ONE + "!")}, {"c.py": ""}, {"p/c.py": ""}:
        library(change)
        found.append(identify_installation())
    for version in "1.0", "1.1":
        installed = (package(version),)
        monkeypatch.setattr(python_corpus, "_find_dependencies", lambda found=installed: found)
        found.append(identify_installation())
    assert len(set(found)) == len(found) == 6
