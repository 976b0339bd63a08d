"""An endless source of stories and textbook passages in simple, correct English.

A quarter of the demo's corpus is generated here, from the templates and tables in `corpus/`,
without a download. The facts are true, the arithmetic is computed, and a model of a few million
parameters can learn this language. After TinyStories: Eldan & Li 2023, arXiv:2305.07759.

    (seed, k) ──rng──▶ story | lesson | worked problems ──▶ passage

`corpus/forms.toml` tells of which texts each form of passage consists. A form is a Jinja template,
in which `rng` is a `PassageRandom`; `phrase`, `script` and `form` render a text with the words that
are set and those of more dictionaries. Lines are joined as sentences; "¶" keeps a line's end.
"""

import hashlib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache, reduce
from itertools import count
from math import gcd
from pathlib import Path
from random import Random
from typing import Any

from jinja2 import Environment, StrictUndefined, pass_context
from jinja2.runtime import Context

from gnano.data.generators import SourceGenerator
from gnano.data.readers import Document
from gnano.demo.text_grammar import (
    capitalize,
    join_words,
    load_corpus,
    render_phrase,
    render_script,
    with_article,
)

CODE_FOLDER = Path(__file__).parent
CODE = ("synthetic_text", "text_grammar")
MIN_CHARS, MAX_CHARS = 400, 1_500  # of a passage
CORPUS = load_corpus(CODE_FOLDER / "corpus")
LISTS, TABLES = CORPUS["lists"], CORPUS["tables"]
FORM_WEIGHTS: dict[str, int] = CORPUS["form_weights"]
_WEIGHTED_FORMS = [CORPUS["forms"][name] for name, n in FORM_WEIGHTS.items() for _ in range(n)]
# nobody swims in the frost or rides a sled in the heat
_WINTER = re.compile(r"\b(?:sled|snow|snowy|icy)\b")
_SUMMER = re.compile(r"\b(?:swam|pond|beach|boat|boats|stream|berries|melon|net|rain barrel|bog)\b")
for plot in CORPUS["plots"].values():
    for row in plot["rows"]:
        about = " ".join(row.values())
        season = "winter" if _WINTER.search(about) else "summer" if _SUMMER.search(about) else "any"
        row["season"] = plot.get("season", season)
_GROUPS = {row["group"]: row["general"] for row in TABLES["groups"]}
for animal in TABLES["animals"]:
    animal |= {"number": LISTS["numbers"][animal["legs"]], "general": _GROUPS[animal["group"]]}


class PassageRandom(Random):
    """The random choices of the templates."""

    def shuffled(self, items: Sequence[Any]) -> list[Any]:
        """Return the items in a random order."""
        shuffled = list(items)
        self.shuffle(shuffled)
        return shuffled

    def numbers(self, low: int, high: int, count: int) -> list[int]:
        """Draw so many numbers from `low` to `high`, both included."""
        return [self.randint(low, high) for _ in range(count)]

    def child(self, *taken: str) -> tuple[str, bool]:
        """Draw a name that is not taken, and whether it is a girl's."""
        while True:
            is_girl = self.random() < 0.5
            name = self.choice(LISTS["girls" if is_girl else "boys"])
            if name not in taken:
                return name, is_girl

    def pronouns(self, is_girl: bool, before: str = "") -> dict[str, str]:
        """Return the words `he`, `him`, `his` and `himself`, with `before` before their names."""
        forms = CORPUS["pronouns"]["girl" if is_girl else "boy"]
        return {f"{before}{name}": form for name, form in forms.items()}

    def pupils(self) -> dict[str, str]:
        """Draw two pupils, `name` and `other`; the pronouns are those of the first."""
        name, is_girl = self.child()
        other, _ = self.child(name)
        return {"name": name, "other": other} | self.pronouns(is_girl)

    def school(self) -> dict[str, str]:
        """Draw two pupils, a place, a day and their teacher."""
        words = self.pupils()
        words |= {"place": self.choice(LISTS["places"]), "weekday": self.choice(LISTS["weekdays"])}
        title = self.choice(["Miss", "Doctor", "Professor"])
        return words | {"teacher": f"{title} {self.choice(LISTS['surnames'])}"}


def write_passage(seed: int, index: int) -> str:
    """Return passage `index` of this seed; it depends on nothing else."""
    # a string seeds through SHA-512: neighboring indices share nothing, in any process
    rng = PassageRandom(f"gnano synthetic {seed} {index}")
    while True:
        text = render_form(rng, rng.choice(_WEIGHTED_FORMS), CORPUS)
        if MIN_CHARS <= len(text) <= MAX_CHARS:
            return text


def render_form(rng: Random, text: str, words: Mapping[str, Any]) -> str:
    """Return a passage: lines joined by spaces, paragraphs by blank lines."""
    paragraphs = re.split(r"\n\s*\n", _compile(text).render(words, rng=rng).strip())
    joined = (" ".join(map(str.strip, each.split("\n"))) for each in paragraphs)
    return "\n\n".join(joined).replace("¶ ", "\n")


def render_cells(rng: Random, row: Mapping[str, str], words: Mapping[str, Any]) -> dict[str, str]:
    """Return one of the variants of each cell of a row."""
    return {column: render_phrase(rng, cell, words) for column, cell in row.items()}


def _with_context(render: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that renders with the words that a template has set, and more."""

    @pass_context
    def render_in_context(context: Context, text: Any, *words: Mapping[str, Any]) -> Any:
        return render(context["rng"], text, reduce(operator.or_, words, context.get_all()))

    return render_in_context


def pair_rows(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words of two rows, with _a and _b appended to their names."""
    return {f"{key}_a": a[key] for key in a} | {f"{key}_b": b[key] for key in b}


_ENVIRONMENT = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
_RENDERERS: dict[str, Callable[..., Any]] = {"phrase": render_phrase, "script": render_script}
_RENDERERS |= {"cells": render_cells, "form": render_form}
_ENVIRONMENT.globals |= {name: _with_context(render) for name, render in _RENDERERS.items()}
_ENVIRONMENT.globals |= {"pair": pair_rows, "fraction": Fraction, "gcd": gcd}
_ENVIRONMENT.filters |= {"join_words": join_words, "capitalize_first": capitalize}
_ENVIRONMENT.filters |= {"with_article": with_article}
_compile = cache(_ENVIRONMENT.from_string)


def hash_generator() -> str:
    """Hash the code and the corpus that determine all passages."""
    digest = hashlib.blake2b(digest_size=16)
    code = [CODE_FOLDER / f"{name}.py" for name in CODE]
    for path in sorted([*code, *CODE_FOLDER.glob("corpus/*.toml")]):
        digest.update(f"{path.name}\0{path.read_text('utf-8')}\0".encode())
    return digest.hexdigest()


PASSAGES = SourceGenerator(
    lambda: (Document(write_passage(0, index)) for index in count()), hash_generator
)
