"""Is this text at all sensible? Open rules of thumb, each of which says what it found.

Nothing here understands a text. A broken model shows all the same: it writes nothing, or
bytes, or word salad without the small words of English, or the same again and again, or code
that is none. What is looked for, and where the limits lie, stands in the constants below.

    text ─▶ nothing? bytes? ─▶ English, Python? ─▶ repeats, loops? ─▶ of the topic? ─▶ Verdict

A verdict is FAIL where no fair model writes so, WEAK where it may happen to one, else OK.
Wrong facts and bad style are OK here: this is the smoke test, not the exam.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, NamedTuple

from gnano.evals.answers import WORDS, repetition
from gnano.evals.python_code import code_in, read_python

Grade = Literal["OK", "WEAK", "FAIL"]
Kind = Literal["prose", "list", "code"]


class Limit(NamedTuple):
    """Beyond which a figure is WEAK, and beyond which it is FAIL; fail < weak: low is bad."""

    weak: float
    fail: float

    def grade(self, figure: float) -> Grade:
        sign = 1 if self.weak < self.fail else -1
        if sign * figure > sign * self.fail:
            return "FAIL"
        return "WEAK" if sign * figure > sign * self.weak else "OK"


SHORTEST = 10  # characters of a continuation that ends by itself; an answer may be "4"
FEW = 12  # words; shares of fewer say nothing
GARBLED = Limit(0.0, 0.005)  # characters that are no text: a sound model writes none
LEAST = 200  # characters of which that is a share, so that one alone is WEAK at most
LETTERS = {  # of what is no space; prose has 0.95, sums and tables in it less
    "prose": Limit(0.70, 0.45),
    "list": Limit(0.60, 0.35),
    "code": Limit(0.25, 0.15),
}
LATIN = Limit(0.90, 0.60)  # of the letters, as the prompts are English
COMMON = Limit(0.20, 0.10)  # of the words; English prose has 0.40 to 0.55
SHAPED = Limit(0.80, 0.55)  # words like sea, Sea or SEA; pieces drawn at random glue to others
REPEATS = {  # of the runs of four words; prose has under 0.05, code is made of set phrases
    "prose": Limit(0.15, 0.50),
    "list": Limit(0.20, 0.50),
    "code": Limit(0.35, 0.65),
}
LOOP = Limit(2, 3)  # times that the end of a text is said: three are WEAK, four FAIL
LOOP_LENGTH = 40  # characters at the end that a loop takes: "ha ha ha" is none
LINES = Limit(2, 4)  # times that one line is in a text
LINE = 16  # characters of a line that is not often the same by chance, as `else:` is
ON_TOPIC = 50  # words; a text with more has two of its topic's, one with fewer has one
MANY = 4  # weak signs at once that are no chance any more

COMMON_WORDS = frozenset(
    """
    a about after all also an and any are as at back be because been before but by can could day
    did do does down each even every first for from get go had has have he her here him his how i
    if in into is it its just like long made make many may me more most much must my never new no
    not now of off old on one only or other our out over own people said same see she should so
    some such than that the their them then there these they this those through time to too two
    under up us use used very was way we well were what when where which while who why will with
    work would year years you your
    """.split()
)
PUNCTUATION = "\"'“”‘’.,:;!?()[]*_-–—…"
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
SHAPE = re.compile(r"[^\W\d_]?(?:[^\W\d_A-Z]{0,15}|[A-Z]{1,11})(?:['’-]\w{1,15})*")
ITEM = re.compile(r"^[ \t]*(?:[-*•+]|\d+[.)])[ \t]*(?=\S)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the prompt asks for."""

    kind: Kind = "prose"
    topic: tuple[str, ...] = ()  # beginnings of words, in lower case, that are about the prompt
    before: str = ""  # the code that a continuation goes on with
    answer: bool = False  # of a tuned model, which ends by itself; else a continuation
    words: int = 0  # of an answer at least; with fewer it is WEAK, with a quarter of them FAIL
    marks: tuple[str, ...] = ()  # of the template, which an answer does not write


@dataclass(frozen=True)
class Verdict:
    grade: Grade
    reasons: tuple[str, ...]  # worst first; of an OK text what speaks for it


class Finding(NamedTuple):
    grade: Grade
    reason: str


def judge(text: str, wanted: Wanted, ended: bool) -> Verdict:
    """Of any text; `ended`: by itself, else the limit of tokens cut it off.

    White space around it counts for nothing.
    """
    text = text.rstrip()
    if not ended:
        text = text.removesuffix("\ufffd").rstrip()  # half a character
    if missing := _missing(text, wanted, ended):
        return Verdict("FAIL", (missing,))
    found = [*_characters(text, wanted), *_form(text, wanted, ended), *_again(text, wanted.kind)]
    found += [*_end(text, wanted, ended), *_topic(text, wanted)]
    faults = [one for grade in ("FAIL", "WEAK") for one in found if one.grade == grade]
    if faults:
        grade = "FAIL" if len(faults) >= MANY else faults[0].grade
        return Verdict(grade, tuple(fault.reason for fault in faults))
    return Verdict("OK", (f"{_counted(len(text.split()))}, {repetition(text):.0%} repeated",))


def _missing(text: str, wanted: Wanted, ended: bool) -> str:
    if not any(map(str.isalnum, text)):
        return "nothing was written" if not text.strip() else "there is no letter or digit in it"
    if ended and not wanted.answer and len(text.strip()) < SHORTEST:
        return f"ends at once: {len(text.strip())} characters"
    return ""


def _characters(text: str, wanted: Wanted) -> Iterator[Finding]:
    """Is it text, and written in the prompt's letters?"""
    dense = [character for character in text if not character.isspace()]
    garbled = sum(map(_garbled, dense))
    reason = f"garbled: {garbled} of its {len(dense)} characters are no text"
    yield Finding(GARBLED.grade(garbled / max(len(dense), LEAST)), reason)
    letters = [character for character in dense if character.isalpha()]
    share = len(letters) / len(dense)
    if len(text.split()) >= FEW or not wanted.answer:  # "1, 2, 3" may be an answer
        yield Finding(LETTERS[wanted.kind].grade(share), f"letters: {share:.0%} of its characters")
    if letters:
        latin = sum(character < "\u0250" for character in letters) / len(letters)
        yield Finding(LATIN.grade(latin), f"script: {latin:.0%} of its letters are Latin")


def _garbled(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")


def _form(text: str, wanted: Wanted, ended: bool) -> Iterator[Finding]:
    """Is it what the prompt begins: English, a list, Python?"""
    if wanted.kind == "code":
        yield _python(text, wanted, ended)
        return
    listed = wanted.kind == "list" and _listed(text, wanted.answer)
    if wanted.kind == "list" and not listed:
        yield Finding("WEAK", "list: it has no further item")
    words = text.split()
    if len(words) < FEW:
        return
    if not listed:  # towel, hat and sunglasses have no small words between them
        spoken = [word.lower() for word in WORD.findall(text)]
        share = sum(word in COMMON_WORDS for word in spoken) / max(1, len(spoken))
        yield Finding(COMMON.grade(share), f"English: {share:.0%} of its words are common ones")
    bare = [word for word in (one.strip(PUNCTUATION) for one in words) if word[:1].isalpha()]
    shaped = sum(SHAPE.fullmatch(word) is not None for word in bare) / max(1, len(bare))
    yield Finding(SHAPED.grade(shaped), f"words: {shaped:.0%} have the form of one")


def _listed(text: str, answer: bool) -> bool:
    """A continuation begins within an item; an answer's may have no mark, or stand in one line."""
    items = len(ITEM.findall(text))
    if not answer:
        return items >= 1
    lines = [line for line in text.split("\n") if 0 < len(line.split()) < FEW]
    return max(items, len(lines), text.count(",")) >= 2


def _python(text: str, wanted: Wanted, ended: bool) -> Finding:
    code = code_in(text) if wanted.answer else text
    if code is None:
        return Finding("FAIL", "Python: there is none in it")
    found = read_python(code, wanted.before, cut=not ended)
    if found.broken:
        whole = found.good + found.broken
        reason = f"Python: {found.good} of its {whole} lines, then {found.fault}"
        return Finding("WEAK" if found.acts else "FAIL", reason)
    return Finding("OK" if found.acts else "WEAK", "Python: its function does nothing")


def _again(text: str, kind: Kind) -> Iterator[Finding]:
    """Is the same said again and again?"""
    unit, times = _loop(text)
    whole = len(unit) * times
    reason = f"loop: its last {whole} characters are {_shown(unit)} {times} times"
    yield Finding(LOOP.grade(times), reason)
    lines = [ITEM.sub("", line).strip() for line in text.split("\n")]
    least = 1 if kind == "list" else LINE
    kept = Counter(line for line in lines if len(line) >= least and any(map(str.isalnum, line)))
    if kept:
        (line, count), *_ = kept.most_common(1)
        yield Finding(LINES.grade(count), f"lines: {count} of {len(lines)} are {_shown(line)}")
    share = repetition(text)
    yield Finding(REPEATS[kind].grade(share), f"repeats: {share:.0%} of its {WORDS}-word runs")


def _counted(words: int) -> str:
    return "1 word" if words == 1 else f"{words} words"


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 40 else f"{line[:39]}…")


def _loop(text: str) -> tuple[str, int]:
    """What the text ends with over and over, and how often; ("", 0) where it does not."""
    end = text.strip()[-2_000:]
    for period in range(1, len(end) // 3 + 1):
        pairs = zip(reversed(end), reversed(end[:-period]), strict=False)
        length = period + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        unit = end[-period:]
        # a rule of dashes ends no worse than it began
        if length >= max(3 * period, LOOP_LENGTH) and any(map(str.isalnum, unit)):
            return unit, length // period
    return "", 0


def _end(text: str, wanted: Wanted, ended: bool) -> Iterator[Finding]:
    """An answer says enough and ends, without the template's words; a continuation need not."""
    if not wanted.answer:
        return
    for mark in wanted.marks:
        if mark in text:
            yield Finding("FAIL", f"template: {mark!r} is in it")
    if not ended:
        yield Finding("WEAK", "end: it went on up to the limit")
    elif (said := len(text.split())) < wanted.words:
        reason = f"short: {_counted(said)}, where {wanted.words} or more are expected"
        yield Finding("FAIL" if said < wanted.words / 4 else "WEAK", reason)


def _topic(text: str, wanted: Wanted) -> Iterator[Finding]:
    words = [word.lower() for word in WORD.findall(text)]
    if wanted.topic:
        found = sum(word.startswith(wanted.topic) for word in words)
        needed = 2 if len(words) > ON_TOPIC else 1
        reason = f"topic: {found} of {_counted(len(words))} on what the prompt is about"
        yield Finding("OK" if found >= needed else "WEAK", reason)
