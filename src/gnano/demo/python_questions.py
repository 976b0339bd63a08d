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
from typing import Any

from gnano.data.generators import SourceGenerator
from gnano.data.manifest import text_position
from gnano.data.sft.conversations import Conversation, Turn
from gnano.demo.python_corpus import identify_installation
from gnano.demo.python_objects import PythonObject, find_completion, find_raise, iter_python_objects
from gnano.demo.text_grammar import join_words

MAX_CHARS = 480  # of a question, its context and its answer: less than 200 tokens
NUMBER_WORDS = "None One Two Three Four Five Six Seven Eight Nine Ten".split()
QUESTION_KINDS: dict[str, Any] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text("utf-8")
)


@cache
def build_python_questions() -> tuple[Conversation, ...]:
    """Return several thousand conversations of one question each; `category` is its kind.

    They are sorted by a hash of their texts, so that any part of them has all kinds.
    """
    objects = list(iter_python_objects())
    siblings: dict[str, list[PythonObject]] = defaultdict(list)
    for obj in objects:
        siblings[f"{obj.kind} {obj.scope}"].append(obj)
    name_counts = Counter(obj.name for obj in objects if not obj.owner)
    modules = sorted({obj.module for obj in objects})
    kept: dict[str, Conversation] = {}
    for obj in objects:
        others = siblings[f"{obj.kind} {obj.scope}"]
        for kind, question, context, answer in _ask(
            obj, others, modules, name_counts[obj.name] == 1
        ):
            # the library may have the same code twice, with different wordings of the question
            text = context if kind == "complete" else f"{question}\n{context}"
            if text not in kept and len(question) + len(context) + len(answer) <= MAX_CHARS:
                turns = Turn("user", question, context), Turn("assistant", answer)
                kept[text] = Conversation(turns, kind, obj.qualified_name)
    return tuple(kept[text] for text in sorted(kept, key=text_position))


def _ask(
    obj: PythonObject, siblings: list[PythonObject], modules: list[str], is_unique: bool
) -> Iterator[tuple[str, str, str, str]]:
    """Yield kind, question, context and answer of the questions about an object."""

    def choose(key: str, count: int) -> int:
        return text_position(f"{obj.qualified_name}: {key}") % count

    def pair(kind: str, context: str, answer: str, **fields: str) -> tuple[str, str, str, str]:
        wordings = QUESTION_KINDS[kind]["wordings"]
        fields |= {"it": obj.qualified_name, "name": obj.name}
        fields |= {"kind": obj.kind, "scope": obj.scope, "module": obj.module}
        return kind, wordings[choose(kind, len(wordings))].format(**fields), context, answer

    selected = {
        kind
        for kind, content in QUESTION_KINDS.items()
        if text_position(f"{kind} {obj.qualified_name}") < content["share"] * 2**64
    }
    if "what it does" in selected and obj.summary:
        context = obj.definition
        if choose("seen", 3):  # else the answer must be known, or guessed from the name
            first = obj.docstring.split("\n\n")[0].replace("\n", "\n    ")
            context += f'\n    """{first}"""'
        yield pair("what it does", context, obj.summary)
    if "which module" in selected and not obj.owner:
        form = choose("form", 5)
        imported, call = f"from {obj.module} import {obj.name}", obj.call or f"{obj.name}(...)"
        if form % 2:
            imported, call = f"import {obj.module}", f"{obj.module}.{call}"
        imports = [imported, f"import {modules[choose('other', len(modules))]}"]
        context = "\n".join([*imports[:: 1 if form < 2 else -1], "", f"x = {call}"])
        if form < 4:
            yield pair("which module", context, obj.module)
        elif is_unique:  # a name in several modules has several answers
            question = f"Which module of the standard library has the {obj.kind} {obj.name}?"
            yield "which module", question, "", obj.module
    if "signature" in selected and obj.kind != "class":
        if obj.call and (choose("called", 3) or not obj.summary):
            yield pair("signature", f"{obj.owner}.{obj.call}".lstrip("."), obj.definition)
        elif obj.summary:
            yield pair("signature", obj.summary, obj.definition)
    others = [each.name for each in siblings if each.summary != obj.summary]
    if "name" in selected and obj.summary and len(others) > 1:
        others.sort(key=lambda name: text_position(f"{obj.qualified_name} or {name}"))
        names = sorted([obj.name, *others[:2]])
        yield pair("name", ", ".join(names), obj.name, sentence=obj.summary)
    count = len(obj.parameters)
    if "arguments" in selected and obj.kind != "class" and count < len(NUMBER_WORDS):
        answer = NUMBER_WORDS[count] + (f": {join_words(obj.parameters)}" if count else "")
        yield pair("arguments", obj.definition, f"{answer}.")
    defaults = [(name, value) for name, value in obj.parameters.items() if value is not None]
    # most are None; another value makes a better question
    defaults = [each for each in defaults if each[1] != "None"] or defaults
    if "default" in selected and defaults:
        name, value = defaults[choose("argument", len(defaults))]
        yield pair("default", obj.definition, value, argument=name)
    bases = obj.node.bases if isinstance(obj.node, ast.ClassDef) else []
    # not a subscript such as Generic[T], and not the result of a call
    if "base" in selected and len(bases) == 1 and isinstance(bases[0], ast.Name | ast.Attribute):
        yield pair("base", obj.definition, ast.unparse(bases[0]))
    if "import" in selected and not obj.owner:
        yield pair("import", "", f"from {obj.module} import {obj.name}")
    for kind, find in ("complete", find_completion), ("raises", find_raise):
        if kind in selected and obj.kind != "class" and (found := find(obj)):
            yield pair(kind, *found)


QUESTIONS = SourceGenerator(build_python_questions, identify_installation)
