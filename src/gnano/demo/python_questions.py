"""Questions about the Python installation, with their answers.

They are about the public functions, methods and classes of the standard library, of the kinds in
`python_questions.toml`; the answer to most of them is in the question's context, so that a small
model can learn to look for it. Nothing is drawn by chance: whether an object is asked about in a
kind, and in which words, its name decides. So the same Python gives the same questions, and
another one mostly the same.

    textwrap.dedent ──▶ "What does textwrap.dedent do?"        Remove any common leading …
                        "Write the line that imports …"        from textwrap import dedent
"""

import ast
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from gnano.data.generators import SourceGenerator
from gnano.data.instructions.conversations import Conversation, Turn
from gnano.data.split import position
from gnano.demo.python_corpus import identity
from gnano.demo.python_lines import raised, unfinished_line
from gnano.demo.python_objects import PythonObject, python_objects

LONGEST = 480  # characters of a question, its context and its answer: less than 200 tokens
NUMBERS = "None One Two Three Four Five Six Seven Eight Nine Ten".split()
KINDS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


class Pair(NamedTuple):
    kind: str
    it: PythonObject
    question: str
    context: str
    answer: str


def python_questions() -> list[Conversation]:
    """Several thousand, each of one question and one answer; `category` is the kind.

    In an order drawn from their texts, so that any part of the list has all kinds.
    """
    return list(_questions())


@lru_cache(maxsize=1)
def _questions() -> tuple[Conversation, ...]:
    kept: dict[str, Conversation] = {}
    for pair in _pairs():
        # the same code may be written twice in the library; its question's words may differ
        text = pair.context if pair.kind == "complete" else f"{pair.question}\n{pair.context}"
        whole = len(pair.question) + len(pair.context) + len(pair.answer)
        if text not in kept and whole <= LONGEST:
            turns = Turn("user", pair.question, pair.context), Turn("assistant", pair.answer)
            kept[text] = Conversation(turns, pair.kind, pair.it.qualified)
    return tuple(kept[text] for text in sorted(kept, key=position))


def _pairs() -> Iterator[Pair]:
    objects = list(python_objects())
    beside: dict[str, list[PythonObject]] = defaultdict(list)
    for it in objects:
        beside[f"{it.kind} {it.scope}"].append(it)
    owners = Counter(it.name for it in objects if not it.owner)
    modules = sorted({it.module for it in objects})
    for it in objects:
        for pair in (
            _what_it_does(it),
            _which_module(it, modules, owners[it.name] == 1),
            _signature(it),
            _name(it, beside[f"{it.kind} {it.scope}"]),
            _arguments(it),
            _default(it),
            _base(it),
            _import(it),
        ):
            if pair and _is_asked(pair.kind, it):
                yield pair
        # these take longer to find
        for kind, find in ("complete", unfinished_line), ("raises", raised):
            if _is_asked(kind, it) and (found := find(it)):
                yield _pair(kind, it, *found)


def _what_it_does(it: PythonObject) -> Pair | None:
    if not it.sentence:
        return None
    context = it.head
    if _draw(it, "seen", 3):  # else it has to be known, or guessed from the name
        first = it.docstring.split("\n\n")[0].replace("\n", "\n    ")
        context += f'\n    """{first}"""'
    return _pair("what it does", it, context, it.sentence)


def _which_module(it: PythonObject, modules: list[str], unique: bool) -> Pair | None:
    if it.owner:
        return None
    form = _draw(it, "form", 5)
    if form == 4:
        # a name of several modules has no one answer
        question = f"Which module of the standard library has the {it.kind} {it.name}?"
        return Pair("which module", it, question, "", it.module) if unique else None
    other = modules[_draw(it, "other", len(modules))]
    imported, call = f"from {it.module} import {it.name}", it.call or f"{it.name}(...)"
    if form % 2:
        imported, call = f"import {it.module}", f"{it.module}.{call}"
    imports = [imported, f"import {other}"][:: 1 if form < 2 else -1]
    return _pair("which module", it, "\n".join([*imports, "", f"x = {call}"]), it.module)


def _signature(it: PythonObject) -> Pair | None:
    if it.kind == "class":
        return None
    if it.call and (_draw(it, "called", 3) or not it.sentence):
        return _pair("signature", it, f"{it.owner}.{it.call}".lstrip("."), it.head)
    return _pair("signature", it, it.sentence, it.head) if it.sentence else None


def _name(it: PythonObject, beside: list[PythonObject]) -> Pair | None:
    others = [each.name for each in beside if each.sentence != it.sentence]
    if not it.sentence or len(others) < 2:
        return None
    others.sort(key=lambda name: position(f"{it.qualified} or {name}"))
    names = sorted([it.name, *others[:2]])
    return _pair("name", it, ", ".join(names), it.name, sentence=it.sentence)


def _arguments(it: PythonObject) -> Pair | None:
    names = list(it.arguments)
    if it.kind == "class" or len(names) >= len(NUMBERS):
        return None
    answer = NUMBERS[len(names)]
    if names:
        answer += ": " + " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return _pair("arguments", it, it.head, f"{answer}.")


def _default(it: PythonObject) -> Pair | None:
    defaults = [(name, value) for name, value in it.arguments.items() if value is not None]
    # most are None; where there is another, to tell it apart is worth more
    defaults = [pair for pair in defaults if pair[1] != "None"] or defaults
    if not defaults:
        return None
    name, value = defaults[_draw(it, "argument", len(defaults))]
    return _pair("default", it, it.head, value, argument=name)


def _base(it: PythonObject) -> Pair | None:
    bases = it.node.bases if isinstance(it.node, ast.ClassDef) else []
    # no class in another's brackets, and none that is yet to be decided upon
    if len(bases) != 1 or not isinstance(bases[0], ast.Name | ast.Attribute):
        return None
    return _pair("base", it, it.head, ast.unparse(bases[0]))


def _import(it: PythonObject) -> Pair | None:
    if it.owner:
        return None
    return _pair("import", it, "", f"from {it.module} import {it.name}")


def _pair(kind: str, it: PythonObject, context: str, answer: str, **holes: str) -> Pair:
    wordings = KINDS[kind]["wordings"]
    words = wordings[_draw(it, kind, len(wordings))]
    holes |= {"it": it.qualified, "name": it.name, "scope": it.scope, "module": it.module}
    return Pair(kind, it, words.format(kind=it.kind, **holes), context, answer)


def _draw(it: PythonObject, what: str, among: int) -> int:
    """One of so many, by its name."""
    return position(f"{it.qualified}: {what}") % among


def _is_asked(kind: str, it: PythonObject) -> bool:
    share: float = KINDS[kind]["share"]
    return position(f"{kind} {it.qualified}") < share * 2**64


QUESTIONS = SourceGenerator(python_questions, identity)
