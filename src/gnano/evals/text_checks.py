"""Rules of thumb for whether a text is sensible, each of which states what it found.

Nothing here understands a text. A broken model shows all the same: it writes nothing, or bytes, or
word salad without the small words of English, or the same again and again, or code that does not
parse. The limits are the constants below.

    text ─▶ nothing? bytes? ─▶ English, Python? ─▶ repeats, loops? ─▶ of the topic? ─▶ Verdict

A verdict is FAIL where no fair model writes so, WEAK where it may happen to one, else OK. Wrong
facts and bad style are OK here: this is a smoke test.

Python counts as far as its longest beginning of whole lines parses; where the limit of tokens cut
the text, an unfinished rest is no fault.
"""

import ast
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, NamedTuple

Grade = Literal["OK", "WEAK", "FAIL"]
TextKind = Literal["prose", "list", "code"]


class Threshold(NamedTuple):
    """Beyond `weak` a figure is WEAK, beyond `fail` FAIL; fail < weak: low values are bad."""

    weak: float
    fail: float

    def grade(self, figure: float) -> Grade:
        sign = 1 if self.weak < self.fail else -1
        if sign * figure > sign * self.fail:
            return "FAIL"
        return "WEAK" if sign * figure > sign * self.weak else "OK"


# characters of a continuation that ends by itself; an answer may be "4"
MIN_CONTINUATION_LENGTH = 10
MIN_WORDS_FOR_SHARES = 12  # words; shares of fewer say nothing
GARBLED_SHARE = Threshold(0.0, 0.005)  # characters that are no text: a sound model writes none
# characters of which that is a share, so that one alone is WEAK at most
MIN_LENGTH_FOR_GARBLED = 200
LETTER_SHARE = {  # of what is no space; prose has 0.95, sums and tables in it less
    "prose": Threshold(0.70, 0.45),
    "list": Threshold(0.60, 0.35),
    "code": Threshold(0.25, 0.15),
}
LATIN_SHARE = Threshold(0.90, 0.60)  # of the letters, as the prompts are English
COMMON_WORD_SHARE = Threshold(0.20, 0.10)  # of the words; English prose has 0.40 to 0.55
WELL_FORMED_SHARE = Threshold(
    0.80, 0.55
)  # words like sea, Sea or SEA; pieces drawn at random glue to others
NGRAM_WORDS = 4  # words of a run whose repetition counts
REPEATED_NGRAM_SHARE = {  # of the runs of four words; prose has under 0.05, code is made of set phrases
    "prose": Threshold(0.15, 0.50),
    "list": Threshold(0.20, 0.50),
    "code": Threshold(0.35, 0.65),
}
LOOP_REPEATS = Threshold(2, 3)  # repeats at the end of a text: three are WEAK, four FAIL
MIN_LOOP_LENGTH = 40  # characters at the end that a loop takes: "ha ha ha" is none
REPEATED_LINES = Threshold(2, 4)  # occurrences of one line in a text
MIN_LINE_LENGTH = 16  # characters of a line that is not often the same by chance, as `else:` is
LONG_TEXT_WORDS = 50  # words; a text with more has two of its topic's, one with fewer has one
MAX_WEAK_ISSUES = 4  # weak signs in one text that are no chance any more

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
WORD_PATTERN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
WORD_SHAPE_PATTERN = re.compile(r"[^\W\d_]?(?:[^\W\d_A-Z]{0,15}|[A-Z]{1,11})(?:['’-]\w{1,15})*")
LIST_ITEM_PATTERN = re.compile(r"^[ \t]*(?:[-*•+]|\d+[.)])[ \t]*(?=\S)", re.MULTILINE)
CODE_FENCE_PATTERN = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
CODE_START_PATTERN = re.compile(
    r"^(?:def|class|import|from|@|async def)\b.*", re.MULTILINE | re.DOTALL
)
# PyCF_ALLOW_INCOMPLETE_INPUT, with which the interpreter's prompt waits
ALLOW_INCOMPLETE_INPUT = 0x4000
INCOMPLETE_MESSAGE = "incomplete input"  # Python's message for a text that could go on and be right
UNTERMINATED_STRING_MESSAGE = "unterminated triple-quoted"
EFFECTFUL_NODES = (  # that do something; docstrings, names and `pass` do not
    *(ast.Return, ast.Yield, ast.Raise, ast.Assert, ast.Call),
    *(ast.Assign, ast.AugAssign, ast.AnnAssign),
)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What the prompt asks for."""

    kind: TextKind = "prose"
    topic_stems: tuple[
        str, ...
    ] = ()  # beginnings of words, in lower case, that are about the prompt
    code_before: str = ""  # the code that a continuation goes on with
    is_answer: bool = False  # of a tuned model, which ends by itself; else a continuation
    min_words: int = 0  # of an answer at least; with fewer it is WEAK, with a quarter of them FAIL
    template_markers: tuple[str, ...] = ()  # of the template, which an answer does not write


@dataclass(frozen=True)
class Verdict:
    grade: Grade
    reasons: tuple[str, ...]  # worst first; of an OK text what speaks for it


class CheckResult(NamedTuple):
    grade: Grade
    reason: str


def grade_text(text: str, expected: Expectation, finished: bool) -> Verdict:
    """Grade a text; `ended`: by itself, else the limit of tokens cut it off.

    White space around it counts for nothing.
    """
    text = text.rstrip()
    if not finished:
        text = text.removesuffix("\ufffd").rstrip()  # half a character
    if missing := _check_presence(text, expected, finished):
        return Verdict("FAIL", (missing,))
    found = [
        *_check_characters(text, expected),
        *_check_form(text, expected, finished),
        *_check_repetition(text, expected.kind),
        *_check_answer(text, expected, finished),
        *_check_topic(text, expected),
    ]
    faults = [one for grade in ("FAIL", "WEAK") for one in found if one.grade == grade]
    if faults:
        grade = "FAIL" if len(faults) >= MAX_WEAK_ISSUES else faults[0].grade
        return Verdict(grade, tuple(fault.reason for fault in faults))
    return Verdict(
        "OK", (f"{_format_word_count(len(text.split()))}, {repetition_rate(text):.0%} repeated",)
    )


def repetition_rate(text: str) -> float:
    """Return the share of the text's runs of four words that are repeats; 0 of a short text."""
    words = text.split()
    runs = [tuple(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _check_presence(text: str, expected: Expectation, finished: bool) -> str:
    if not any(map(str.isalnum, text)):
        return "nothing was written" if not text.strip() else "there is no letter or digit in it"
    if finished and not expected.is_answer and len(text.strip()) < MIN_CONTINUATION_LENGTH:
        return f"ends at once: {len(text.strip())} characters"
    return ""


def _check_characters(text: str, expected: Expectation) -> Iterator[CheckResult]:
    """Check that it is text, and written in the prompt's letters."""
    dense = [character for character in text if not character.isspace()]
    garbled = sum(map(_is_garbled, dense))
    reason = f"garbled: {garbled} of its {len(dense)} characters are no text"
    yield CheckResult(
        GARBLED_SHARE.grade(garbled / max(len(dense), MIN_LENGTH_FOR_GARBLED)), reason
    )
    letters = [character for character in dense if character.isalpha()]
    share = len(letters) / len(dense)
    if (
        len(text.split()) >= MIN_WORDS_FOR_SHARES or not expected.is_answer
    ):  # "1, 2, 3" may be an answer
        yield CheckResult(
            LETTER_SHARE[expected.kind].grade(share), f"letters: {share:.0%} of its characters"
        )
    if letters:
        latin = sum(character < "\u0250" for character in letters) / len(letters)
        yield CheckResult(LATIN_SHARE.grade(latin), f"script: {latin:.0%} of its letters are Latin")


def _is_garbled(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")


def _check_form(text: str, expected: Expectation, finished: bool) -> Iterator[CheckResult]:
    """Check that it is what the prompt begins: English, a list, Python."""
    if expected.kind == "code":
        yield _check_python(text, expected, finished)
        return
    is_list = expected.kind == "list" and _has_list_items(text, expected.is_answer)
    if expected.kind == "list" and not is_list:
        yield CheckResult("WEAK", "list: it has no further item")
    words = text.split()
    if len(words) < MIN_WORDS_FOR_SHARES:
        return
    if not is_list:  # towel, hat and sunglasses have no small words between them
        spoken = _lower_words(text)
        share = sum(word in COMMON_WORDS for word in spoken) / max(1, len(spoken))
        yield CheckResult(
            COMMON_WORD_SHARE.grade(share), f"English: {share:.0%} of its words are common ones"
        )
    bare = [word for word in (one.strip(PUNCTUATION) for one in words) if word[:1].isalpha()]
    shaped = sum(WORD_SHAPE_PATTERN.fullmatch(word) is not None for word in bare) / max(
        1, len(bare)
    )
    yield CheckResult(WELL_FORMED_SHARE.grade(shaped), f"words: {shaped:.0%} have the form of one")


def _has_list_items(text: str, is_answer: bool) -> bool:
    """Count items: a continuation begins within one; an answer's may have no mark, or one line."""
    items = len(LIST_ITEM_PATTERN.findall(text))
    if not is_answer:
        return items >= 1
    lines = [line for line in text.split("\n") if 0 < len(line.split()) < MIN_WORDS_FOR_SHARES]
    return max(items, len(lines), text.count(",")) >= 2


def _check_repetition(text: str, kind: TextKind) -> Iterator[CheckResult]:
    """Check that the same is not said again and again."""
    unit, times = _final_loop(text)
    reason = (
        f"loop: its last {len(unit) * times} characters are {_shorten_quote(unit)} {times} times"
    )
    yield CheckResult(LOOP_REPEATS.grade(times), reason)
    lines = [LIST_ITEM_PATTERN.sub("", line).strip() for line in text.split("\n")]
    least = 1 if kind == "list" else MIN_LINE_LENGTH
    kept = Counter(line for line in lines if len(line) >= least and any(map(str.isalnum, line)))
    if kept:
        (line, count), *_ = kept.most_common(1)
        yield CheckResult(
            REPEATED_LINES.grade(count),
            f"lines: {count} of {len(lines)} are {_shorten_quote(line)}",
        )
    share = repetition_rate(text)
    yield CheckResult(
        REPEATED_NGRAM_SHARE[kind].grade(share),
        f"repeats: {share:.0%} of its {NGRAM_WORDS}-word runs",
    )


def _final_loop(text: str) -> tuple[str, int]:
    """Return what the text ends with over and over, and how often; ("", 0) if nothing."""
    end = text.strip()[-2_000:]
    for period in range(1, len(end) // 3 + 1):
        pairs = zip(reversed(end), reversed(end[:-period]), strict=False)
        length = period + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        unit = end[-period:]
        # a rule of dashes ends no worse than it began
        if length >= max(3 * period, MIN_LOOP_LENGTH) and any(map(str.isalnum, unit)):
            return unit, length // period
    return "", 0


def _check_answer(text: str, expected: Expectation, finished: bool) -> Iterator[CheckResult]:
    """Check that an answer is long enough and ends, without the template's words."""
    if not expected.is_answer:
        return
    for mark in expected.template_markers:
        if mark in text:
            yield CheckResult("FAIL", f"template: {mark!r} is in it")
    if not finished:
        yield CheckResult("WEAK", "end: it went on up to the limit")
    elif (words := len(text.split())) < expected.min_words:
        reason = (
            f"short: {_format_word_count(words)}, where {expected.min_words} or more are expected"
        )
        yield CheckResult("FAIL" if words < expected.min_words / 4 else "WEAK", reason)


def _check_topic(text: str, expected: Expectation) -> Iterator[CheckResult]:
    words = _lower_words(text)
    if expected.topic_stems:
        found = sum(word.startswith(expected.topic_stems) for word in words)
        needed = 2 if len(words) > LONG_TEXT_WORDS else 1
        reason = f"topic: {found} of {_format_word_count(len(words))} on what the prompt is about"
        yield CheckResult("OK" if found >= needed else "WEAK", reason)


def _lower_words(text: str) -> list[str]:
    return [word.lower() for word in WORD_PATTERN.findall(text)]


def _format_word_count(words: int) -> str:
    return "1 word" if words == 1 else f"{words} words"


def _shorten_quote(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 40 else f"{line[:39]}…")


def _check_python(text: str, expected: Expectation, finished: bool) -> CheckResult:
    """Grade a continuation of the code `before`, or the code in an answer."""
    code: str | None = text
    if (
        expected.is_answer
    ):  # between fences, else from the first line that begins like code to the end
        block = CODE_FENCE_PATTERN.search(text) or CODE_START_PATTERN.search(text)
        code = block[block.lastindex or 0] if block else None
    if code is None:
        return CheckResult("FAIL", "Python: there is none in it")
    lines = code.split("\n")
    full = _parse_python(expected.code_before + code)
    kept, tree = len(lines), full
    while not isinstance(tree, ast.Module) and kept:
        kept -= 1
        tree = _parse_python(expected.code_before + "\n".join(lines[:kept]))
    does_something = isinstance(tree, ast.Module) and _has_effects(tree)
    if not isinstance(full, ast.Module):
        rest = [line for line in lines[kept:] if line.strip()]
        if not finished and _is_incomplete_python(expected.code_before, lines):
            # a function may be one `try` or one call, which is none before its end
            does_something = does_something or UNTERMINATED_STRING_MESSAGE not in full
        elif rest and not (does_something and rest[0][0] not in " \t"):  # else text that follows
            good = sum(bool(line.strip()) for line in lines[:kept])
            reason = f"Python: {good} of its {good + len(rest)} lines, then {full}"
            return CheckResult("WEAK" if does_something else "FAIL", reason)
    return CheckResult("OK" if does_something else "WEAK", "Python: its function does nothing")


def _is_incomplete_python(before: str, lines: list[str]) -> bool:
    """Tell whether it is right as far as it goes; the last line may break off anywhere."""
    for part in (lines, lines[:-1]):
        found = _parse_python(before + "\n".join(part), ALLOW_INCOMPLETE_INPUT)
        if isinstance(found, ast.Module) or found == INCOMPLETE_MESSAGE:
            return any(map(str.strip, part))
    return False


def _parse_python(code: str, flags: int = 0) -> ast.Module | str:
    """Return the tree, or Python's word for what is wrong."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that will be errors one day
            tree = compile(code, "text", "exec", ast.PyCF_ONLY_AST | flags)
    except SyntaxError as error:
        return error.msg.partition(" (detected at")[0]
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    assert isinstance(tree, ast.Module)
    return tree


def _has_effects(tree: ast.Module) -> bool:
    function = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), None)
    return function is not None and any(
        isinstance(node, EFFECTFUL_NODES) for part in function.body for node in ast.walk(part)
    )
