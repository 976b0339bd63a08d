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

Texts are compiled once into closures; rendering only draws random numbers and joins strings.
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
Renderer = Callable[[Random, Words], str]  # a compiled phrase

_TOKEN = re.compile(r"([\[\]|]|\{[^{}]*\}|<[^<>]*>)")
# written with a vowel but spoken with a consonant, and the reverse
_SPOKEN_A = re.compile(r"(?:one|once|use|uni|eu|uk|1[02-79]\d|1[02-79]\b)", re.IGNORECASE)
_SPOKEN_AN = re.compile(r"(?:hour|honest|heir|8|11\b|18\b|11,|18,)", re.IGNORECASE)
_SMALL_IN_TITLES = frozenset(["a", "an", "and", "for", "in", "of", "on", "the", "to", "with"])
_OPERATORS = {"+": operator.add, "-": operator.sub, "×": operator.mul, "÷": operator.truediv}
_POOLS: dict[str, list[Renderer]] = {}


def load_corpus(folder: Path) -> dict[str, dict[str, Any]]:
    """Load the sections of all TOML files of a folder, and register its pools for all phrases.

    A text in `lists` is split at white space; those in `tables`, and the rows of `plots`, are
    parsed as tables.
    """
    corpus: dict[str, dict[str, Any]] = defaultdict(dict)
    for path in sorted(folder.glob("*.toml")):
        for section, content in tomllib.loads(path.read_text("utf-8")).items():
            corpus[section] |= content
    for name, text in corpus.pop("pools").items():
        _POOLS[name] = [_compile(line) for line in _join_continued(text).splitlines()]
    lists, tables = corpus["lists"], corpus["tables"]
    lists |= {name: text.split() for name, text in lists.items() if isinstance(text, str)}
    tables |= {name: _parse_table(text) for name, text in tables.items()}
    for plot in corpus["plots"].values():
        plot |= {"title": _join_continued(plot["title"]), "rows": _parse_table(plot["rows"])}
    return corpus


def _join_continued(text: str) -> str:
    """Join each line that starts with two spaces to the line above."""
    return re.sub(r"\n {2,}", " ", text.strip())


def _parse_table(text: str) -> list[dict[str, str]]:
    """Parse a table: the first line names the columns, ';' separates the cells."""
    header, *lines = _join_continued(text).splitlines()
    rows = ([cell.strip() for cell in line.split(";")] for line in lines)
    return [dict(zip(header.split("; "), row, strict=True)) for row in rows]


def render_phrase(rng: Random, text: str, words: Words | None = None) -> str:
    """Return one of the variants of a phrase."""
    return _compile(text)(rng, words or {})


def render_script(rng: Random, text: str, words: Words) -> str:
    """Return one variant of a script: sentences joined by spaces, paragraphs by blank lines."""
    paragraphs = []
    for sentences in _compile_script(text):
        drawn = [
            render(rng, words)
            for optional, render in sentences
            if not (optional and rng.random() < 0.5)
        ]
        paragraphs.append(" ".join([capitalize(text.strip()) for text in drawn if text]))
    return "\n\n".join(filter(None, paragraphs))


def with_article(noun: str) -> str:
    """Add the article: 'apple' -> 'an apple', 'useful tool' -> 'a useful tool'."""
    vowel = noun[:1].lower() in "aeiou" and not _SPOKEN_A.match(noun)
    return f"{'an' if vowel or _SPOKEN_AN.match(noun) else 'a'} {noun}"


def capitalize(text: str) -> str:
    """Put the first letter, inside an opening quotation mark or not, in upper case."""
    at = 1 if text[:1] == '"' else 0
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :]


def _to_title(text: str) -> str:
    """Convert to title case: 'box of paints' -> 'Box of Paints'."""
    return " ".join([w if w in _SMALL_IN_TITLES else capitalize(w) for w in text.split()])


def join_words(items: Iterable[str]) -> str:
    """Join a list of words: ['a', 'b', 'c'] -> 'a, b and c'."""
    *first, end = items
    return f"{', '.join(first)} and {end}" if first else end


def _format_number(value: Fraction | int) -> str:
    """Format 1200 as '1,200', 5/2 as '2.5', and a value without a short decimal as a fraction."""
    value = Fraction(value)
    if value.denominator == 1:
        return f"{value.numerator:,}"
    if 100 % value.denominator == 0:
        return f"{float(value):,.2f}".rstrip("0")
    return f"{value.numerator}/{value.denominator}"


def _format_cents(cents: Fraction | int) -> str:
    return f"{float(cents) / 100:.2f}"


def format_equation(
    sign: str, parts: Iterable[int | Fraction], form: Callable[[Fraction], str] = _format_number
) -> str:
    """Return '3 + 4 + 5 = 12': the parts joined by one sign, and their result."""
    terms = [Fraction(part) for part in parts]
    return f"{f' {sign} '.join(map(form, terms))} = {form(reduce(_OPERATORS[sign], terms))}"


@cache
def _compile(text: str) -> Renderer:
    """Compile one phrase, whose brackets must match."""
    # the alternatives of each open bracket, each a list of parts; the outermost has one
    stack: list[list[list[Renderer]]] = [[[]]]
    for token in _TOKEN.split(text):
        parts = stack[-1][-1]
        if token == "[":
            stack.append([[]])
        elif token == "|":
            stack[-1].append([])
        elif token == "]":
            options = [_concatenate(option) for option in stack.pop()]
            stack[-1][-1].append(_choose(options))
        elif token[:1] == "{" and token[1] in "#$=":
            parts.append(_compile_calculation(token[1:-1]))
        elif token[:1] in ("{", "<"):
            parts.append(_compile_placeholder(token))
        elif token:
            parts.append(_literal(token))
    ((parts,),) = stack  # fails where a bracket is not closed
    return _concatenate(parts)


@cache
def _compile_script(text: str) -> list[list[tuple[bool, Renderer]]]:
    """Compile a script into paragraphs of sentences; the flag marks those that are optional."""
    blocks = re.split(r"\n\s*\n", re.sub(r"\n\| ", "|", _join_continued(text)))
    return [
        [
            (line[:2] == "? ", _compile(f"[{line.removeprefix('? ')}]"))
            for line in block.splitlines()
        ]
        for block in blocks
    ]


def _compile_calculation(inside: str) -> Renderer:
    """Compile the inside of `{#n}`, `{$cents}`, `{= a + b}` or `{=$ a + b}`."""
    key = inside[1:]
    if inside[0] == "#":
        return lambda rng, words: _format_number(words[key])
    if inside[0] == "$":
        return lambda rng, words: f"${_format_cents(words[key])}"
    kind, *terms = inside.split()
    form = _format_cents if kind == "=$" else _format_number

    def render(rng: Random, words: Words) -> str:
        parts = [int(term) if term.isdigit() else words[term] for term in terms[::2]]
        return format_equation(terms[1], parts, form)

    return render


def _compile_placeholder(token: str) -> Renderer:
    """Compile `{thing}` or `<pool>`, in the form that the spelling of its name requests."""
    article, _, name = token[1:-1].rpartition(" ")
    key = name.lower()
    forms: list[Callable[[str], str]] = []
    if name[0].isupper():
        forms.append(_to_title if name.isupper() else capitalize)
    if article:
        forms.append(with_article)
    if article == "A":
        forms.append(capitalize)

    def render(rng: Random, words: Words) -> str:
        # resolved when rendered: a pool's phrases may draw from pools that are loaded later
        text = str(words[key]) if token[0] == "{" else _choose(_POOLS[key])(rng, words)
        for form in forms:
            text = form(text)
        return text

    return render


def _literal(text: str) -> Renderer:
    return lambda rng, words: text


def _choose(options: list[Renderer]) -> Renderer:
    return lambda rng, words: options[int(rng.random() * len(options))](rng, words)


def _concatenate(parts: list[Renderer]) -> Renderer:
    if len(parts) == 1:
        return parts[0]
    return lambda rng, words: "".join([part(rng, words) for part in parts])
