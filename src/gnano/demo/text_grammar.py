r"""A small template language for texts with many variants, and the loader of the corpus files.

A phrase is plain text with three kinds of placeholders:

    [a|b|c]      one of these; an empty alternative writes nothing; they nest
    {thing}      the value of `thing`, the same one throughout the passage
    <weather>    one of the phrases of the pool `weather`, drawn afresh each time

A placeholder may request a form of its word: `{a thing}` adds the right article, `{Thing}` starts
with a capital, `{THING}` is in title case. `{#count}` is a number, 1,200, and `{$price}` an amount
in cents, $12.00; `{= a + b}` is the equation "3 + 4 = 7" with a computed result, and `{=$ a + b}`
the same in cents, "0.03 + 0.04 = 0.07".

A script is a passage. Each line is a sentence; a blank line starts a new paragraph:

    One sentence, in [one|this] way.
    | An alternative to the sentence above. | A short one may share its line.
    ? A sentence that is left out half of the time.
      A line that starts with two spaces continues the line above.

Texts are compiled once; rendering only draws random numbers and joins strings.
"""

import operator
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import cache, reduce
from pathlib import Path
from random import Random
from typing import Any

Words = Mapping[str, Any]  # the values of the placeholders
Renderer = Callable[[Random, Words], str]
# a compiled phrase: its parts, of which a list has alternatives
Phrase = list["str | Renderer | list[Phrase]"]

_TOKEN = re.compile(r"([\[\]|]|\{[^{}]*\}|<[^<>]*>)")
_CALCULATION = re.compile(r"\{(#|\$|=\$?) ?(.+)\}")
# some words are written with a vowel but spoken with a consonant, or the reverse
_SPOKEN_VOWEL = re.compile(r"(?!one|once|use|uni|eu|uk)[aeiou]|hour|honest|heir", re.IGNORECASE)
_SMALL_IN_TITLES = frozenset(["a", "an", "and", "for", "in", "of", "on", "the", "to", "with"])
_OPERATORS = {"+": operator.add, "-": operator.sub, "×": operator.mul, "÷": operator.truediv}
_POOLS: dict[str, list[Phrase]] = {}


def load_corpus(folder: Path) -> dict[str, dict[str, Any]]:
    """Load the sections of all TOML files of a folder, and register its pools for all phrases.

    A text in `lists` is split at white space; those in `tables`, and the rows of `plots`, are
    tables: the first line names the columns, ';' separates the cells, and digits are a number.
    """

    def parse_table(text: str) -> list[dict[str, Any]]:
        header, *lines = _join_continued(text).splitlines()
        rows = ([cell.strip() for cell in line.split(";")] for line in lines)
        numbers = ([int(cell) if cell.isdigit() else cell for cell in row] for row in rows)
        return [dict(zip(header.split("; "), row, strict=True)) for row in numbers]

    corpus: dict[str, dict[str, Any]] = defaultdict(dict)
    for path in sorted(folder.glob("*.toml")):
        for section, content in tomllib.loads(path.read_text("utf-8")).items():
            corpus[section] |= content
    for name, text in corpus.pop("pools").items():
        _POOLS[name] = [_compile(line) for line in _join_continued(text).splitlines()]
    lists, tables = corpus["lists"], corpus["tables"]
    lists |= {name: text.split() for name, text in lists.items() if isinstance(text, str)}
    tables |= {name: parse_table(text) for name, text in tables.items()}
    for plot in corpus["plots"].values():
        plot |= {"title": _join_continued(plot["title"]), "rows": parse_table(plot["rows"])}
    return corpus


def _join_continued(text: str) -> str:
    """Join each line that starts with two spaces to the line above."""
    return re.sub(r"\n {2,}", " ", text.strip())


def render_phrase(rng: Random, text: str, words: Words) -> str:
    """Return one of the variants of a phrase."""
    return _render(_compile(text), rng, words)


def render_script(rng: Random, text: str, words: Words) -> str:
    """Return one variant of a script: sentences joined by spaces, paragraphs by blank lines."""
    paragraphs = []
    for sentences in _compile_script(text):
        drawn = [
            _render(sentence, rng, words)
            for is_optional, sentence in sentences
            if not (is_optional and rng.random() < 0.5)
        ]
        paragraphs.append(" ".join([capitalize(text.strip()) for text in drawn if text]))
    return "\n\n".join(filter(None, paragraphs))


def with_article(noun: str) -> str:
    """Add the article: 'apple' -> 'an apple', 'useful tool' -> 'a useful tool'."""
    return f"{'an' if _SPOKEN_VOWEL.match(noun) else 'a'} {noun}"


def capitalize(text: str) -> str:
    """Put the first letter, inside an opening quotation mark or not, in upper case."""
    at = 1 if text[:1] == '"' else 0
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :]


def join_words(items: Iterable[str], before: str = "") -> str:
    """Join words with `before` before each: ['a', 'b', 'c'] -> 'a, b and c'."""
    *others, last = [before + item for item in items]
    return " and ".join(filter(None, [", ".join(others), last]))


def _render(phrase: Phrase, rng: Random, words: Words) -> str:
    texts = []
    for part in phrase:
        if isinstance(part, list):
            texts.append(_render(part[int(rng.random() * len(part))], rng, words))
        else:
            texts.append(part if isinstance(part, str) else part(rng, words))
    return "".join(texts)


@cache
def _compile(text: str) -> Phrase:
    """Compile one phrase, whose brackets must match."""
    stack: list[list[Phrase]] = [[[]]]  # the alternatives of each open bracket
    for token in _TOKEN.split(text):
        if token == "[":
            stack.append([[]])
        elif token == "|":
            stack[-1].append([])
        elif token == "]":
            alternatives = stack.pop()
            stack[-1][-1].append(alternatives)
        elif calculation := _CALCULATION.fullmatch(token):
            stack[-1][-1].append(_compile_calculation(calculation[1], calculation[2].split()))
        elif token[:1] in ("{", "<"):
            stack[-1][-1].append(_compile_placeholder(token))
        elif token:
            stack[-1][-1].append(token)
    ((phrase,),) = stack  # fails where a bracket is not closed
    return phrase


@cache
def _compile_script(text: str) -> list[list[tuple[bool, Phrase]]]:
    """Compile a script into paragraphs of sentences; the flag marks those that are optional."""
    blocks = re.split(r"\n\s*\n", re.sub(r"\n\| ", "|", _join_continued(text)))
    return [
        [
            (line[:2] == "? ", _compile(f"[{line.removeprefix('? ')}]"))
            for line in block.splitlines()
        ]
        for block in blocks
    ]


def _compile_calculation(kind: str, terms: list[str]) -> Renderer:
    """Compile `{#n}`, `{$cents}`, `{= a + b}` or `{=$ a + b}`, evaluated from left to right."""

    def form(value: Fraction) -> str:
        """Format 1200 as '1,200', 5/2 as '2.5', what has no short decimal as a fraction."""
        if "$" in kind:
            return f"{float(value) / 100:.2f}"
        if value.denominator == 1:
            return f"{value.numerator:,}"
        return f"{float(value):,.2f}".rstrip("0") if 100 % value.denominator == 0 else str(value)

    def render(rng: Random, words: Words) -> str:
        values = [Fraction(term if term.isdigit() else words[term]) for term in terms[::2]]
        if len(values) == 1:
            return f"${form(values[0])}" if kind == "$" else form(values[0])
        sign = terms[1]
        return f"{f' {sign} '.join(map(form, values))} = {form(reduce(_OPERATORS[sign], values))}"

    return render


def _compile_placeholder(token: str) -> Renderer:
    """Compile `{thing}` or `<pool>`, in the form that the spelling of its name requests."""
    article, _, name = token[1:-1].rpartition(" ")
    key = name.lower()

    def render(rng: Random, words: Words) -> str:
        # resolved when rendered: a pool's phrases may draw from pools that are loaded later
        text = str(words[key]) if token[0] == "{" else _render([_POOLS[key]], rng, words)
        if name.isupper():
            title = text.split()
            text = " ".join([w if w in _SMALL_IN_TITLES else capitalize(w) for w in title])
        elif name[0].isupper():
            text = capitalize(text)
        if article:
            text = with_article(text)
        return capitalize(text) if article == "A" else text

    return render
