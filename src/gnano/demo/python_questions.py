"""Questions and answers about the Python installation, for supervised fine-tuning.

They are about the public functions, methods and classes of the standard library, of the kinds in
`python_questions.toml`; the answer to most of them is in the question's context, so that a small
model can learn to find it. Nothing is random: a hash of an object's name selects its questions
and their wording. So the same Python gives the same questions, and another one mostly the same.

    textwrap.dedent ──▶ "What does textwrap.dedent do?"        Remove any common leading …
                        "Write the line that imports …"        from textwrap import dedent
"""

import ast
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gnano.data.generators import SourceGenerator
from gnano.data.manifest import text_position
from gnano.data.sft.conversations import Conversation, Turn
from gnano.demo.python_corpus import identify_installation
from gnano.demo.python_lines import find_completion, find_raise
from gnano.demo.python_objects import PythonObject, iter_python_objects

MAX_CHARS = 480  # of a question, its context and its answer: less than 200 tokens
NUMBER_WORDS = "None One Two Three Four Five Six Seven Eight Nine Ten".split()
QUESTION_KINDS: dict[str, Any] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text("utf-8")
)


class QuestionAnswer(NamedTuple):
    """One question about an object, with its context and its answer."""

    kind: str
    obj: PythonObject
    question: str
    context: str
    answer: str


def build_python_questions() -> list[Conversation]:
    """Return several thousand conversations of one question each; `category` is its kind.

    They are sorted by a hash of their texts, so that any part of the list has all kinds.
    """
    return list(_build_questions())


@cache
def _build_questions() -> tuple[Conversation, ...]:
    kept: dict[str, Conversation] = {}
    for pair in _iter_pairs():
        # the library may have the same code twice, with different wordings of the question
        text = pair.context if pair.kind == "complete" else f"{pair.question}\n{pair.context}"
        length = len(pair.question) + len(pair.context) + len(pair.answer)
        if text not in kept and length <= MAX_CHARS:
            turns = Turn("user", pair.question, pair.context), Turn("assistant", pair.answer)
            kept[text] = Conversation(turns, pair.kind, pair.obj.qualified_name)
    return tuple(kept[text] for text in sorted(kept, key=text_position))


def _iter_pairs() -> Iterator[QuestionAnswer]:
    objects = list(iter_python_objects())
    siblings: dict[str, list[PythonObject]] = defaultdict(list)
    for obj in objects:
        siblings[f"{obj.kind} {obj.scope}"].append(obj)
    name_counts = Counter(obj.name for obj in objects if not obj.owner)
    modules = sorted({obj.module for obj in objects})
    for obj in objects:
        for pair in (
            _ask_purpose(obj),
            _ask_module(obj, modules, name_counts[obj.name] == 1),
            _ask_signature(obj),
            _ask_name(obj, siblings[f"{obj.kind} {obj.scope}"]),
            _ask_arguments(obj),
            _ask_default(obj),
            _ask_base(obj),
            _ask_import(obj),
        ):
            if pair and _is_selected(pair.kind, obj):
                yield pair
        # these take longer to find
        for kind, find in ("complete", find_completion), ("raises", find_raise):
            if _is_selected(kind, obj) and (found := find(obj)):
                yield _make_pair(kind, obj, *found)


def _ask_purpose(obj: PythonObject) -> QuestionAnswer | None:
    if not obj.summary:
        return None
    context = obj.definition
    if _choose_index(obj, "seen", 3):  # else the answer must be known, or guessed from the name
        first = obj.docstring.split("\n\n")[0].replace("\n", "\n    ")
        context += f'\n    """{first}"""'
    return _make_pair("what it does", obj, context, obj.summary)


def _ask_module(obj: PythonObject, modules: list[str], unique: bool) -> QuestionAnswer | None:
    if obj.owner:
        return None
    form = _choose_index(obj, "form", 5)
    if form == 4:
        # a name in several modules has several answers
        question = f"Which module of the standard library has the {obj.kind} {obj.name}?"
        return QuestionAnswer("which module", obj, question, "", obj.module) if unique else None
    other = modules[_choose_index(obj, "other", len(modules))]
    imported, call = f"from {obj.module} import {obj.name}", obj.call or f"{obj.name}(...)"
    if form % 2:
        imported, call = f"import {obj.module}", f"{obj.module}.{call}"
    imports = [imported, f"import {other}"][:: 1 if form < 2 else -1]
    return _make_pair("which module", obj, "\n".join([*imports, "", f"x = {call}"]), obj.module)


def _ask_signature(obj: PythonObject) -> QuestionAnswer | None:
    if obj.kind == "class":
        return None
    if obj.call and (_choose_index(obj, "called", 3) or not obj.summary):
        return _make_pair("signature", obj, f"{obj.owner}.{obj.call}".lstrip("."), obj.definition)
    return _make_pair("signature", obj, obj.summary, obj.definition) if obj.summary else None


def _ask_name(obj: PythonObject, siblings: list[PythonObject]) -> QuestionAnswer | None:
    others = [each.name for each in siblings if each.summary != obj.summary]
    if not obj.summary or len(others) < 2:
        return None
    others.sort(key=lambda name: text_position(f"{obj.qualified_name} or {name}"))
    names = sorted([obj.name, *others[:2]])
    return _make_pair("name", obj, ", ".join(names), obj.name, sentence=obj.summary)


def _ask_arguments(obj: PythonObject) -> QuestionAnswer | None:
    names = list(obj.parameters)
    if obj.kind == "class" or len(names) >= len(NUMBER_WORDS):
        return None
    answer = NUMBER_WORDS[len(names)]
    if names:
        answer += ": " + " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return _make_pair("arguments", obj, obj.definition, f"{answer}.")


def _ask_default(obj: PythonObject) -> QuestionAnswer | None:
    defaults = [(name, value) for name, value in obj.parameters.items() if value is not None]
    # most are None; another value makes a better question
    defaults = [pair for pair in defaults if pair[1] != "None"] or defaults
    if not defaults:
        return None
    name, value = defaults[_choose_index(obj, "argument", len(defaults))]
    return _make_pair("default", obj, obj.definition, value, argument=name)


def _ask_base(obj: PythonObject) -> QuestionAnswer | None:
    bases = obj.node.bases if isinstance(obj.node, ast.ClassDef) else []
    # not a subscript such as Generic[T], and not the result of a call
    if len(bases) != 1 or not isinstance(bases[0], ast.Name | ast.Attribute):
        return None
    return _make_pair("base", obj, obj.definition, ast.unparse(bases[0]))


def _ask_import(obj: PythonObject) -> QuestionAnswer | None:
    if obj.owner:
        return None
    return _make_pair("import", obj, "", f"from {obj.module} import {obj.name}")


def _make_pair(
    kind: str, obj: PythonObject, context: str, answer: str, **fields: str
) -> QuestionAnswer:
    wordings = QUESTION_KINDS[kind]["wordings"]
    wording = wordings[_choose_index(obj, kind, len(wordings))]
    fields |= {"it": obj.qualified_name, "name": obj.name, "scope": obj.scope, "module": obj.module}
    return QuestionAnswer(kind, obj, wording.format(kind=obj.kind, **fields), context, answer)


def _choose_index(obj: PythonObject, key: str, count: int) -> int:
    """Return an index below `count`, from a hash of the object's name and the key."""
    return text_position(f"{obj.qualified_name}: {key}") % count


def _is_selected(kind: str, obj: PythonObject) -> bool:
    share: float = QUESTION_KINDS[kind]["share"]
    return text_position(f"{kind} {obj.qualified_name}") < share * 2**64


QUESTIONS = SourceGenerator(build_python_questions, identify_installation)
