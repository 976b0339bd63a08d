"""Questions and answers about the Python installation, for supervised fine-tuning.

They are about the public functions, methods and classes of the standard library, of the kinds in
`python_questions.toml`; the answer to most of them is in the question's context, so that a small
model can learn to find it. Nothing is random: a hash of an object's name selects its questions
and their wording. So the same Python gives the same questions, and another one mostly the same.

    textwrap.dedent ──▶ "What does textwrap.dedent do?"        Remove any common leading …
                        "Write the line that imports …"        from textwrap import dedent
"""

import tomllib
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from gnano.data.generators import SourceGenerator
from gnano.data.manifest import text_position
from gnano.data.sft.conversations import Conversation, Turn
from gnano.demo.python_corpus import identify_installation
from gnano.demo.python_objects import PythonObject, find_completion, find_raise, iter_python_objects
from gnano.demo.text_grammar import join_words

MAX_CHARS = 480  # of a question, its context and its answer: less than 200 tokens
DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))


@cache
def build_python_questions() -> tuple[Conversation, ...]:
    """Return several thousand conversations of one question each; `category` is its kind.

    They are sorted by a hash of their texts, so that any part of them has all kinds.
    """
    objects = list(iter_python_objects())
    siblings: dict[str, list[PythonObject]] = defaultdict(list)
    for obj in objects:
        siblings[f"{obj.kind} {obj.scope}"].append(obj)

    def similar_names(obj: PythonObject) -> list[str]:
        """Return an object's name and two others of its kind and scope; [] without these."""
        family = siblings[f"{obj.kind} {obj.scope}"]
        others = [each.name for each in family if each.summary != obj.summary]
        others.sort(key=lambda name: text_position(f"{obj.qualified_name} or {name}"))
        return sorted([obj.name, *others[:2]]) if len(others) > 1 else []

    environment = Environment(undefined=StrictUndefined, trim_blocks=True)
    environment.filters["join_words"] = join_words
    environment.globals |= {"numbers": DATA["numbers"], "similar_names": similar_names}
    environment.globals |= {"find_completion": find_completion, "find_raise": find_raise}
    environment.globals["modules"] = sorted({obj.module for obj in objects})
    environment.globals["name_counts"] = Counter(obj.name for obj in objects if not obj.owner)
    templates = [environment.from_string(each["template"]) for each in DATA["questions"]]
    kept: dict[str, Conversation] = {}
    for obj in objects:
        for each, template in zip(DATA["questions"], templates, strict=True):
            kind, wordings = each["kind"], each["wordings"]
            if text_position(f"{kind} {obj.qualified_name}") >= each["share"] * 2**64:
                continue
            context, is_asked, answer = template.render(it=obj).rpartition("▶")
            if not is_asked:
                continue
            context = context.removesuffix("\n")
            question = wordings[obj.choose(kind, len(wordings))].format(it=obj)
            # the library may have the same code twice, with different wordings of the question
            text = context if kind == "complete" else f"{question}\n{context}"
            if text not in kept and len(question) + len(context) + len(answer) <= MAX_CHARS:
                turns = Turn("user", question, context), Turn("assistant", answer)
                kept[text] = Conversation(turns, kind, obj.qualified_name)
    return tuple(kept[text] for text in sorted(kept, key=text_position))


QUESTIONS = SourceGenerator(build_python_questions, identify_installation)
