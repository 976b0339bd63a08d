"""Public objects are found with their definitions, and lines whose rest can be read above."""

from collections.abc import Callable

import pytest

from gnano.demo.python_objects import PythonObject, find_completion, find_raise

Library = Callable[[dict[str, str]], dict[str, PythonObject]]


def test_public_objects_are_found_under_their_qualified_names(
    library: Library,
) -> None:
    text = "class C:\n    def m(self): ...\n    def _n(self): ...\n\nasync def f(): ...\n"
    names = {
        "a.py": text,
        "p/__init__.py": text,
        "p/b.py": text,
        "_q.py": text,
        "p/__main__.py": "",
    }
    assert list(library(names)) == [
        f"{module}.{name}" for module in ("a", "p", "p.b") for name in ("C", "C.m", "f")
    ]


def test_files_that_cannot_be_imported_are_left_out(library: Library) -> None:
    names = "idlelib/a.py", "config-3.11/b.py", "p/_c.py", "test/d.py", "e.py"
    assert list(library(dict.fromkeys(names, "def f(): ...\n"))) == ["e.f"]


@pytest.mark.parametrize(
    "text",
    [
        "def f(a): ...\ndef f(a, b): ...\n",
        "@wrapped\ndef f(a): ...\n",
        "def f(a): ...\ndel f\n",
        "if True:\n    def f(a): ...\n",
        "def g:\n",
        "def _f(a): ...\n",
    ],
)
def test_ambiguous_definitions_are_left_out(library: Library, text: str) -> None:
    assert not library({"a.py": text})


def test_a_call_shows_the_complete_signature_or_is_empty(library: Library) -> None:
    parameters = ["a, b=1, *c, **d", "", "a, *, b", "a, /", "a: int", "a={1: 2}"]
    text = "\n".join(f"def f{n}({arguments}): ..." for n, arguments in enumerate(parameters))
    text += "\nclass C:\n    def m(self, a): ...\n    @staticmethod\n    def s(a): ...\n"
    text += "    @classmethod\n    def c(cls, a): ...\n"
    found = {name: it.call for name, it in library({"a.py": text}).items()}
    assert found == {
        "a.f0": "f0(a, b=1, *c, **d)",
        "a.f1": "f1()",
        "a.f2": "",
        "a.f3": "",
        "a.f4": "",
        "a.f5": "",  # a colon may be an annotation's
        "a.C": "",
        "a.C.m": "m(a)",
        "a.C.s": "s(a)",
        "a.C.c": "c(a)",
    }


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the sum of a. It may be\n    large.", "Return the sum of a."),
        ("Return a list, e.g. of\n    names.\n\n    More.", "Return a list, e.g. of names."),
        ("Return all of it\n\n    More.", "Return all of it"),
        ("f(a) -> the sum of all", ""),
        (">>> f(1)", ""),
        ("Some of these are:", ""),
        ("The sum.", ""),
        ("Return " + "very " * 40 + "much.", ""),
    ],
)
def test_the_summary_is_the_first_sentence_or_empty(
    library: Library, docstring: str, sentence: str
) -> None:
    found = library({"a.py": f'def f(a):\n    """{docstring}\n    """\n'})
    assert found["a.f"].summary == sentence


def test_a_line_is_cut_where_its_rest_occurs_before(library: Library) -> None:
    seen = (
        "def f(first, second):\n    '''No.'''\n    third = first\n    return call(third, first)\n"
    )
    new = "def f(first):\n    third = 'other'\n    return unheard_of(forth)\n"
    found = find_completion(library({"a.py": seen})["a.f"])
    assert found is not None
    before, rest = found
    assert (
        before + rest == "def f(first, second):\n    third = first\n    return call(third, first)"
    )
    assert rest in {"third, first)", "(third, first)", ", first)"}
    assert find_completion(library({"a.py": new})["a.f"]) is None


def test_the_raised_exception_is_in_the_last_line(library: Library) -> None:
    text = "def f(a):\n    if a:\n        raise {}\n"
    for raised, name in [
        ("ValueError('no')", "ValueError"),
        ("KeyError", "KeyError"),
        ("error", None),
        ("a.Error()", None),
        ("Error(\n            a\n        )", None),
    ]:
        found = find_raise(library({"a.py": text.format(raised)})["a.f"])
        assert found == (name and (text.format(raised).rstrip(), name))
