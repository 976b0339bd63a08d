import ast
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from gnano.data.python_corpus import python_code, python_prose
from gnano.data.split import is_heldout

PROSE, CODE = 1_000_000, 300_000  # bytes; less prose would be the language reference alone

PROGRAM = f"""
import hashlib, json, sys
before = set(sys.modules)
from gnano.data.python_corpus import python_code, python_prose
documents = python_prose({PROSE}) + python_code({CODE})
new = sorted(set(sys.modules) - before)
print(json.dumps([hashlib.sha256(repr(documents).encode()).hexdigest(), new]))
"""


@pytest.fixture(scope="module")
def prose():
    return python_prose(PROSE)


@pytest.fixture(scope="module")
def code():
    return python_code(CODE)


@pytest.fixture(scope="module")
def fresh(request):
    """What two new processes, with other hashes of strings, read."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in "12"
    ]
    request.getfixturevalue("prose")  # read here meanwhile
    outputs = [process.communicate()[0] for process in processes]
    return [json.loads(output) for output in outputs]


def test_every_process_reads_the_same(fresh, prose, code):
    here = hashlib.sha256(repr(prose + code).encode()).hexdigest()
    assert [digest for digest, _ in fresh] == [here, here]


def test_nothing_is_imported_to_be_read(fresh, prose, code):
    assert any(document.group.startswith(("torch/", "numpy/")) for document in prose)
    read = {d.group.removesuffix(".py").replace("/", ".") for d in (*prose, *code)}
    for _, imported in fresh:
        roots = {name.split(".")[0] for name in imported}
        assert roots.isdisjoint({"turtle", "antigravity", "this", "tkinter", "lib2to3", "idlelib"})
        assert roots.isdisjoint({"torch", "numpy", "sympy", "tokenizers", "tyro"})
        # of what was read only the few modules that reading itself needs
        assert len(read & set(imported)) < 0.1 * len(read)


def test_budgets_end_with_the_document_that_fills_them(prose, code):
    for documents, budget in ((prose, PROSE), (code, CODE)):
        sizes = [len(document.text.encode()) for document in documents]
        assert sum(sizes[:-1]) < budget <= sum(sizes)


def test_a_larger_budget_begins_with_the_same_documents(code):
    assert python_code(CODE // 3) == code[: len(python_code(CODE // 3))]


def test_code_is_real_files_of_the_standard_library_that_parse(code):
    library = Path(sysconfig.get_paths()["stdlib"])
    for document in code:
        path = library / document.group
        assert path.read_text(encoding="utf-8") == document.text
        assert not {"test", "tests", "site-packages"} & set(path.relative_to(library).parts)
        ast.parse(document.text)


def test_no_docstring_is_repeated(prose):
    """A docstring stands below the name it documents, alone in its line."""
    docstrings = Counter()
    for document in prose:
        if document.group.endswith(".py"):
            module = document.group.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for part in ("\n\n" + document.text).split(f"\n\n{module}")[1:]:
                docstrings[part.partition("\n\n")[2].strip()] += 1
    assert len(docstrings) > 100
    assert [text for text, times in docstrings.items() if times > 1] == []


def test_prose_has_the_language_reference_readmes_and_docstrings(prose):
    whole = "".join(document.text for document in prose)
    assert 'The "try" statement' in whole
    kinds = Counter(document.group.split()[0] for document in prose)
    assert kinds["topic"] > 50
    assert kinds["readme"] > 5


def documented(source):
    """The beginnings of a module's prose: each top-level name and its docstring."""
    module = source.group.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    tree = ast.parse(source.text)
    for node in [tree, *tree.body]:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            name = module if node is tree else f"{module}.{node.name}"
            if docstring := ast.get_docstring(node):
                yield f"\n\n{name}\n\n{docstring.strip()}\n"


def test_a_modules_docstrings_and_its_source_are_held_out_together(prose):
    modules = 0
    for source in python_code(3_000_000):
        parts = list(documented(source))
        for document in prose:
            if any(part in f"\n\n{document.text}" for part in parts):
                modules += 1
                for share in 0.1, 0.3, 0.5, 0.7, 0.9:
                    assert is_heldout(document, share) == is_heldout(source, share)
    assert modules > 3
