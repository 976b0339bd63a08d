"""How one line of text becomes many: a tiny language for things that can be said differently.

A phrase is plain text with three kinds of holes:

    [a|b|c]      say one of these; an empty alternative says nothing; they nest
    {thing}      the scene's word for `thing`, the same one all through the passage
    <weather>    one of the pool's phrases for `weather`, drawn afresh each time

A hole may ask for a form of its word: `{a thing}` puts the right article before it, `{Thing}`
starts it with a capital, `{THING}` writes it as a title. Pools know the first two forms.

A script is a passage: a line is a beat, a blank line starts a new paragraph.

    One sentence, in [one|this] way.
    | Another way to say the same beat; one is drawn. | A short one may share its line.
    ? A beat that is left out half of the time.
      A line that starts with two spaces belongs to the line above.

Everything is compiled once into closures; telling it only draws random numbers and joins.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from random import Random

Words = Mapping[str, str]
Say = Callable[[Random, Words], str]  # a compiled phrase: draw from the dice, read the scene

_TOKEN = re.compile(r"([\[\]|]|\{[^{}]*\}|<[^<>]*>)")
# written with a vowel but spoken with a consonant, and the other way round
_SPOKEN_A = re.compile(r"(?:one|once|use|uni|eu|uk|1[02-79]\d|1[02-79]\b)", re.IGNORECASE)
_SPOKEN_AN = re.compile(r"(?:hour|honest|heir|8|11\b|18\b|11,|18,)", re.IGNORECASE)
_SMALL_IN_TITLES = frozenset(["a", "an", "and", "for", "in", "of", "on", "the", "to", "with"])

POOLS: dict[str, list[Say]] = {}


def with_article(noun: str) -> str:
    """'apple' -> 'an apple', 'hour' -> 'an hour', 'useful tool' -> 'a useful tool'."""
    vowel = noun[:1].lower() in "aeiou" and not _SPOKEN_A.match(noun)
    return f"{'an' if vowel or _SPOKEN_AN.match(noun) else 'a'} {noun}"


def capital(text: str) -> str:
    """The text with its first letter, inside an opening quotation mark or not, in upper case."""
    at = 1 if text[:1] == '"' else 0
    return text[:at] + text[at : at + 1].upper() + text[at + 1 :]


def title(text: str) -> str:
    """'box of paints' -> 'Box of Paints'."""
    return " ".join([w if w in _SMALL_IN_TITLES else capital(w) for w in text.split()])


def listing(items: Iterable[str], last: str = "and") -> str:
    """['a', 'b', 'c'] -> 'a, b and c'."""
    *first, end = items
    return f"{', '.join(first)} {last} {end}" if first else end


def _literal(text: str) -> Say:
    return lambda dice, words: text


def _one_of(options: list[Say]) -> Say:
    many = len(options)
    return lambda dice, words: options[int(dice.random() * many)](dice, words)


def _in_turn(parts: list[Say]) -> Say:
    if len(parts) == 1:
        return parts[0]
    return lambda dice, words: "".join([part(dice, words) for part in parts])


def _hole(inside: str, fetch: Callable[[str], Say]) -> Say:
    """A word of the scene or the pool, in the form that the spelling of its name asks for."""
    article, _, name = inside.rpartition(" ")
    word = fetch(name.lower())
    if name.isupper():
        word = _formed(title, word)
    elif name[0].isupper():
        word = _formed(capital, word)
    if article:
        word = _formed(with_article, word)
    return _formed(capital, word) if article == "A" else word


def _formed(form: Callable[[str], str], word: Say) -> Say:
    return lambda dice, words: form(word(dice, words))


def _from_scene(key: str) -> Say:
    return lambda dice, words: words[key]


def _from_pool(key: str) -> Say:
    # looked up when told: a pool's phrases may themselves draw from pools defined later
    return lambda dice, words: POOLS[key][int(dice.random() * len(POOLS[key]))](dice, words)


@cache
def phrase(text: str) -> Say:
    """Compile one phrase. Raises ValueError where its brackets do not match."""
    open_choices: list[list[Say]] = []
    parts: list[Say] = []
    outer: list[list[Say]] = []
    for token in _TOKEN.split(text):
        if token == "[":
            outer.append(parts)
            open_choices.append([])
            parts = []
        elif token in ("|", "]"):
            if not open_choices:
                raise ValueError(f"the phrase {text!r} has a {token!r} outside of [ ]")
            open_choices[-1].append(_in_turn(parts))
            parts = []
            if token == "]":
                parts = outer.pop()
                parts.append(_one_of(open_choices.pop()))
        elif token[:1] == "{":
            parts.append(_hole(token[1:-1], _from_scene))
        elif token[:1] == "<":
            parts.append(_hole(token[1:-1], _from_pool))
        elif token:
            parts.append(_literal(token))
    if open_choices:
        raise ValueError(f"the phrase {text!r} has a '[' that is never closed")
    return _in_turn(parts)


def say(dice: Random, text: str, words: Words | None = None) -> str:
    """One way of saying this phrase."""
    return phrase(text)(dice, words or {})


def pool(name: str, text: str) -> None:
    """Name the phrases, one a line, that `<name>` draws from."""
    POOLS[name] = [phrase(line) for line in unfold(text).splitlines()]


def unfold(text: str) -> str:
    """Each line that starts with two spaces joined to the line above."""
    return re.sub(r"\n {2,}", " ", text.strip())


Beat = tuple[bool, Say]  # may it be left out? and what it says


@cache
def script(text: str) -> list[list[Beat]]:
    """Compile a script into paragraphs of beats."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", unfold(text)):
        beats: list[tuple[bool, list[Say]]] = []
        for line in block.splitlines():
            mark = line[:2]
            ways = [phrase(way) for way in _ways(line.removeprefix("| ").removeprefix("? "))]
            if mark == "| ":
                beats[-1][1].extend(ways)
            else:
                beats.append((mark == "? ", ways))
        paragraphs.append([(optional, _one_of(ways)) for optional, ways in beats])
    return paragraphs


def _ways(line: str) -> list[str]:
    """The alternatives that share a line: parted by ' | ', which inside brackets is theirs."""
    ways, depth = [""], 0
    for piece in re.split(r"([\[\]]| \| )", line):
        depth += (piece == "[") - (piece == "]")
        if piece == " | " and depth == 0:
            ways.append("")
        else:
            ways[-1] += piece
    return ways


def tell(dice: Random, text: str, words: Words) -> str:
    """One telling of a script: its beats as sentences, its paragraphs apart by a blank line."""
    told = []
    for beats in script(text):
        drawn = [
            beat(dice, words) for optional, beat in beats if not (optional and dice.random() < 0.5)
        ]
        paragraph = " ".join([capital(sentence.strip()) for sentence in drawn if sentence])
        if paragraph:
            told.append(paragraph)
    return "\n\n".join(told)


def names(text: str) -> list[str]:
    """A list of single words, written as running text."""
    return text.split()


def table(text: str) -> list[dict[str, str]]:
    """Rows of a hand-written table: the first line names the columns, ';' parts the cells."""
    header, *lines = unfold(text).splitlines()
    columns = [name.strip() for name in header.split(";")]
    rows = []
    for line in lines:
        cells = [cell.strip() for cell in line.split(";")]
        if len(cells) != len(columns):
            raise ValueError(f"{len(cells)} cells where {len(columns)} are named: {line!r}")
        rows.append(dict(zip(columns, cells, strict=True)))
    return rows
