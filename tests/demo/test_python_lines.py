"""The rest of a cut line consists of words from the lines before it."""

from collections.abc import Callable

from gnano.demo.python_lines import find_completion, find_raise
from gnano.demo.python_objects import PythonObject

Library = Callable[[dict[str, str]], dict[str, PythonObject]]


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
