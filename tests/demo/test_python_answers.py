"""The answers about the standard library are true of the imported objects and their source."""

import ast
import importlib
import inspect
import re
import sysconfig
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from gnano.data.sft.conversations import Conversation
from gnano.demo.python_questions import build_python_questions

pytestmark = pytest.mark.slow
# modules of pure Python whose import has no side effects on any system
SAFE = """
    argparse ast calendar cmd code collections configparser contextlib copy csv difflib dis email
    fractions ftplib gettext html http imaplib inspect ipaddress json locale logging mailbox
    mimetypes netrc optparse os pathlib pickletools plistlib pprint queue random sched shelve shlex
    shutil smtplib socketserver string tarfile tempfile textwrap threading timeit tokenize trace
    traceback types unittest urllib uuid wave xmlrpc zipfile
""".split()


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[Conversation]]:
    """Return the questions by kind."""
    found = defaultdict(list)
    for pair in build_python_questions():
        found[pair.category].append(pair)
    return found


def context(pair: Conversation) -> str:
    return pair.turns[0].context


def answer(pair: Conversation) -> str:
    return pair.turns[1].content


def imported(topic: str) -> Any:
    """Return the object of this name; None if it is unsafe to import or missing on this system."""
    parts = topic.split(".")
    if parts[0] not in SAFE:
        return None
    for count in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            found = (
                inspect.getattr_static(found, part)
                if inspect.isclass(found)
                else getattr(found, part)
            )
        return found
    return None


def source(topic: str) -> str:
    """Return the source of the object's module."""
    library = Path(sysconfig.get_paths()["stdlib"])
    parts = topic.split(".")
    for count in range(len(parts) - 1, 0, -1):
        path = library.joinpath(*parts[:count])
        for file in path / "__init__.py", path.with_suffix(".py"):
            if file.is_file():
                return file.read_text("utf-8")
    raise AssertionError(f"{topic} is in no file")


def functions(found: list[Conversation]) -> list[tuple[Conversation, inspect.Signature]]:
    """Return the pairs about imported Python functions with their signatures."""
    signatures = []
    for pair in found:
        function = imported(pair.topic)
        if function is not None:
            function = getattr(function, "__func__", function)  # of a class or static method
        if inspect.isfunction(function) and function.__qualname__ in pair.topic:
            signatures.append((pair, inspect.signature(function)))
    return signatures


def test_signatures_are_those_of_the_imported_functions(
    pairs: dict[str, list[Conversation]],
) -> None:
    for pair in pairs["signature"]:
        ast.parse(answer(pair) + " ...")
    signatures_by_pair = functions(pairs["signature"])
    assert len(signatures_by_pair) > 300
    for pair, real in signatures_by_pair:
        (node,) = ast.parse(answer(pair) + " ...").body
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert node.name == pair.topic.rpartition(".")[2]
        parameters_text = evaluated(node.args).parameters.values()
        assert [(p.name, p.kind) for p in parameters_text] == [
            (p.name, p.kind) for p in real.parameters.values()
        ]
        for one, two in zip(parameters_text, real.parameters.values(), strict=True):
            assert one.default == two.default or one.default is ...


def evaluated(arguments: ast.arguments) -> inspect.Signature:
    """Return the signature without annotations, with `...` for defaults that are not constants."""
    for each in ast.walk(arguments):
        if isinstance(each, ast.arg):
            each.annotation = None
    own = ast.Constant(...)
    arguments.defaults = [v if isinstance(v, ast.Constant) else own for v in arguments.defaults]
    arguments.kw_defaults = [
        v if v is None or isinstance(v, ast.Constant) else own for v in arguments.kw_defaults
    ]
    scope: dict[str, Any] = {}
    exec(f"def f({ast.unparse(arguments)}): ...", scope)
    return inspect.signature(scope["f"])


def test_arguments_are_those_of_the_imported_functions(
    pairs: dict[str, list[Conversation]],
) -> None:
    numbers = "None One Two Three Four Five Six Seven Eight Nine Ten".split()
    signatures_by_pair = functions(pairs["arguments"])
    assert len(signatures_by_pair) > 150
    for pair, signature in signatures_by_pair:
        names = list(signature.parameters)
        scope, _, name = pair.topic.rpartition(".")
        cls = imported(scope)
        if inspect.isclass(cls) and not isinstance(vars(cls).get(name), staticmethod):
            names = names[1:]
        count, _, names_text = answer(pair).removesuffix(".").partition(": ")
        assert count == numbers[len(names)]
        assert re.findall(r"\w+", names_text.replace(" and ", " ")) == names


def test_defaults_are_those_of_the_imported_functions(
    pairs: dict[str, list[Conversation]],
) -> None:
    checked = 0
    for pair, signature in functions(pairs["default"]):
        words = re.findall(r"\w+", pair.turns[0].content)
        defaults = [p.default for p in signature.parameters.values() if p.name in words]
        try:
            value = ast.literal_eval(answer(pair))
        except ValueError:  # a name of the module's
            continue
        assert value in defaults
        checked += 1
    assert checked > 100


def test_modules_have_the_objects_of_the_questions(
    pairs: dict[str, list[Conversation]],
) -> None:
    checked = 0
    for pair in pairs["which module"]:
        module, name = pair.topic.rsplit(".", 1)
        assert answer(pair) == module
        assert f" {name} " in f"{pair.turns[0].content} ".replace("?", " ")
        if module.split(".")[0] in SAFE and imported(pair.topic) is not None:
            assert hasattr(importlib.import_module(answer(pair)), name)
            checked += 1
    assert checked > 200
    # what has to be known has one answer
    blind = [pair.topic.rsplit(".", 1)[1] for pair in pairs["which module"] if not context(pair)]
    assert len(blind) > 50
    assert len(set(blind)) == len(blind)


def test_import_lines_import_the_objects_of_the_questions(
    pairs: dict[str, list[Conversation]],
) -> None:
    checked = 0
    for pair in pairs["import"]:
        if (expected := imported(pair.topic)) is not None:
            scope: dict[str, Any] = {}
            exec(answer(pair), scope)
            assert scope[pair.topic.rpartition(".")[2]] is expected
            checked += 1
    assert checked > 100


def test_base_classes_are_those_of_the_imported_classes(
    pairs: dict[str, list[Conversation]],
) -> None:
    checked = 0
    for pair in pairs["base"]:
        cls = imported(pair.topic)
        if inspect.isclass(cls):
            assert answer(pair).rpartition(".")[2] in {base.__name__ for base in cls.__bases__}
            checked += 1
    assert checked > 150


def test_completed_lines_are_lines_of_their_module(
    pairs: dict[str, list[Conversation]],
) -> None:
    for pair in pairs["complete"]:
        *before, cut_line = context(pair).split("\n")
        lines = {line.strip() for line in source(pair.topic).expandtabs().split("\n")}
        assert before
        assert cut_line.strip()
        assert (cut_line + answer(pair)).strip() in lines
        assert {line.strip() for line in before} <= lines | {""}


def test_the_last_line_shown_raises_the_exception(pairs: dict[str, list[Conversation]]) -> None:
    for pair in pairs["raises"]:
        last = context(pair).split("\n")[-1].strip()
        assert re.fullmatch(rf"raise {answer(pair)}\b.*", last)
        assert last in source(pair.topic).expandtabs()


def test_summaries_are_the_start_of_the_docstrings(
    pairs: dict[str, list[Conversation]],
) -> None:
    checked = 0
    for pair in pairs["what it does"] + pairs["name"]:
        found = imported(pair.topic)
        docstring = getattr(found, "__func__", found).__doc__ if found is not None else None
        if not docstring:
            continue
        opening = " ".join(inspect.cleandoc(docstring).split())
        if pair.category == "what it does":
            assert opening.startswith(answer(pair))
        else:
            question = pair.turns[0].content
            assert any(question.endswith(opening[:size]) for size in range(12, 200))
        checked += 1
    assert checked > 500


def test_the_correct_name_is_one_of_three(pairs: dict[str, list[Conversation]]) -> None:
    for pair in pairs["name"]:
        names = context(pair).split(", ")
        assert len(set(names)) == 3
        assert answer(pair) in names
        assert answer(pair) == pair.topic.rpartition(".")[2]
        scope = pair.topic.rpartition(".")[0]
        assert f" {scope} " in pair.turns[0].content
