"""Heuristic checks of whether a text is sensible; every check states what it found.

The checks do not understand a text, but they detect a broken model: it writes nothing, bytes, word
salad without the common words of English, the same text again and again, or code that does not
parse. The thresholds are in `smoke_test.toml`.

    text ─▶ present? ─▶ characters ─▶ English or Python? ─▶ repetition ─▶ topic ─▶ Verdict

A verdict is FAIL where no working model writes such a text, WEAK where one may occasionally do so,
else OK. Wrong facts and bad style are OK.

Python code is graded by its longest beginning of complete lines that parses; where the token limit
truncated the text, an unfinished rest is accepted.
"""

import ast
import re
import tomllib
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from gnano.utils.formatting import plural

Grade = Literal["OK", "WEAK", "FAIL"]
TextKind = Literal["prose", "list", "code"]
# thresholds, the common words of English, and the prompts of the smoke test
SETTINGS: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("smoke_test.toml").read_text("utf-8")
)
THRESHOLDS = SETTINGS["thresholds"]
COMMON_WORDS = frozenset(SETTINGS["words"]["common"].split())
MIN_CONTINUATION_LENGTH = 10  # characters of a continuation that ends by itself
MIN_WORDS_FOR_SHARES = 12  # shares of fewer words mean nothing
# garbled characters are a share of at least so many, so that a single one is WEAK at most
MIN_LENGTH_FOR_GARBLED = 200
NGRAM_WORDS = 4  # words of a run whose repetition counts
MIN_LOOP_LENGTH = 40  # characters; "ha ha ha" is no loop
MIN_LINE_LENGTH = 16  # characters; shorter lines such as `else:` repeat by chance
LONG_TEXT_WORDS = 50  # a longer text needs two words of its topic, a shorter one needs one
MAX_WEAK_ISSUES = 4  # as many WEAK checks make a text FAIL
PUNCTUATION = "\"'“”‘’.,:;!?()[]*_-–—…"
WORD_PATTERN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
WORD_SHAPE_PATTERN = re.compile(r"[^\W\d_]?(?:[^\W\d_A-Z]{0,15}|[A-Z]{1,11})(?:['’-]\w{1,15})*")
LIST_ITEM_PATTERN = re.compile(r"^[ \t]*(?:[-*•+]|\d+[.)])[ \t]*(?=\S)", re.MULTILINE)
CODE_FENCE_PATTERN = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
CODE_START_PATTERN = re.compile(
    r"^(?:def|class|import|from|@|async def)\b.*", re.MULTILINE | re.DOTALL
)
GARBLED_CATEGORIES = ("Cc", "Cn", "Co", "Cs")  # of Unicode: control characters, unassigned
ALLOW_INCOMPLETE_INPUT = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT, a flag of `compile`
INCOMPLETE_MESSAGE = "incomplete input"  # Python's message for code that may be continued
UNTERMINATED_STRING_MESSAGE = "unterminated triple-quoted"
EFFECTFUL_NODES = (  # docstrings, names and `pass` have no effect
    *(ast.Return, ast.Yield, ast.Raise, ast.Assert, ast.Call),
    *(ast.Assign, ast.AugAssign, ast.AnnAssign),
)
Check = tuple[Grade, str]  # the grade of one check and its reason


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """The properties that the prompt requires of a text."""

    kind: TextKind = "prose"
    topic_stems: tuple[str, ...] = ()  # lower-case beginnings of words about the prompt's topic
    code_before: str = ""  # code that a continuation continues
    is_answer: bool = False  # an answer of a tuned model, which ends by itself; else a continuation
    min_words: int = 0  # of an answer; fewer are WEAK, less than a quarter FAIL
    template_markers: tuple[str, ...] = ()  # parts of the template; an answer contains none


@dataclass(frozen=True)
class Verdict:
    """The grade of a text and the reasons for it."""

    grade: Grade
    reasons: tuple[str, ...]  # worst first; for an OK text its statistics


def grade_text(text: str, expected: Expectation, finished: bool) -> Verdict:
    """Grade a text; `finished` is False if the token limit truncated it.

    White space at its ends is ignored.
    """
    text = text.rstrip()
    if not finished:
        text = text.removesuffix("\ufffd").rstrip()  # half a character
    length = len(text.strip())
    if not any(map(str.isalnum, text)):
        missing = "there is no letter or digit in it" if length else "nothing was written"
        return Verdict("FAIL", (missing,))
    if finished and not expected.is_answer and length < MIN_CONTINUATION_LENGTH:
        return Verdict("FAIL", (f"ends immediately: {length} characters",))
    results = [
        *_check_language(text, expected, finished),
        *_check_repetition(text, expected.kind),
        *_check_content(text, expected, finished),
    ]
    issues = [one for grade in ("FAIL", "WEAK") for one in results if one[0] == grade]
    if issues:
        grade = "FAIL" if len(issues) >= MAX_WEAK_ISSUES else issues[0][0]
        return Verdict(grade, tuple(reason for _, reason in issues))
    words = plural(len(text.split()), "word")
    return Verdict("OK", (f"{words}, {repetition_rate(text):.0%} repeated",))


def _grade(check: str, value: float) -> Grade:
    weak, fail = THRESHOLDS[check]
    sign = 1 if weak < fail else -1
    if sign * value > sign * fail:
        return "FAIL"
    return "WEAK" if sign * value > sign * weak else "OK"


def repetition_rate(text: str) -> float:
    """Return the share of the text's runs of four words that are repeats; 0 for a short text."""
    words = text.split()
    runs = [tuple(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _check_language(text: str, expected: Expectation, finished: bool) -> Iterator[Check]:
    """Check that the text is Latin letters, then English, a list or Python, as is required."""
    words = text.split()
    is_long = len(words) >= MIN_WORDS_FOR_SHARES
    dense = [character for character in text if not character.isspace()]
    garbled = sum(c == "\ufffd" or unicodedata.category(c) in GARBLED_CATEGORIES for c in dense)
    share = garbled / max(len(dense), MIN_LENGTH_FOR_GARBLED)
    reason = f"garbled: {garbled} of its {len(dense)} characters are not text"
    yield _grade("garbled", share), reason
    letters = [character for character in dense if character.isalpha()]
    if is_long or not expected.is_answer:  # "1, 2, 3" may be an answer
        share = len(letters) / len(dense)
        yield _grade(f"letters_{expected.kind}", share), f"letters: {share:.0%} of its characters"
    if letters:
        latin = sum(character < "\u0250" for character in letters) / len(letters)
        yield _grade("latin", latin), f"script: {latin:.0%} of its letters are Latin"
    if expected.kind == "code":
        yield _check_python(text, expected, finished)
        return
    is_list = False
    if expected.kind == "list":  # one item more in a continuation, two of any form in an answer
        items = len(LIST_ITEM_PATTERN.findall(text))
        lines = [line for line in text.split("\n") if 0 < len(line.split()) < MIN_WORDS_FOR_SHARES]
        in_any_form = max(items, len(lines), text.count(","))
        is_list = in_any_form >= 2 if expected.is_answer else items >= 1
        if not is_list:
            yield "WEAK", "list: it has no further item"
    if not is_long:
        return
    if not is_list:  # a list of nouns has no common words
        lower = _lower_words(text)
        share = sum(word in COMMON_WORDS for word in lower) / max(1, len(lower))
        yield _grade("common_words", share), f"English: {share:.0%} of its words are common ones"
    bare = [word for word in (one.strip(PUNCTUATION) for one in words) if word[:1].isalpha()]
    shaped = sum(WORD_SHAPE_PATTERN.fullmatch(word) is not None for word in bare)
    share = shaped / max(1, len(bare))
    yield _grade("well_formed", share), f"words: {share:.0%} are well-formed"


def _check_repetition(text: str, kind: TextKind) -> Iterator[Check]:
    """Check for a loop at the end, repeated lines and repeated runs of words."""
    unit, times = "", 0
    end = text.strip()[-2_000:]
    for period in range(1, len(end) // 3 + 1):
        pairs = zip(reversed(end), reversed(end[:-period]), strict=False)
        length = period + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        # a line of dashes is no loop
        if length >= max(3 * period, MIN_LOOP_LENGTH) and any(map(str.isalnum, end[-period:])):
            unit, times = end[-period:], length // period
            break
    size = len(unit) * times
    reason = f"loop: its last {size} characters are {_shorten_quote(unit)} {times} times"
    yield _grade("loop_repeats", times), reason
    lines = [LIST_ITEM_PATTERN.sub("", line).strip() for line in text.split("\n")]
    min_length = 1 if kind == "list" else MIN_LINE_LENGTH
    kept = [line for line in lines if len(line) >= min_length and any(map(str.isalnum, line))]
    if kept:
        (line, count), *_ = Counter(kept).most_common(1)
        reason = f"lines: {count} of {len(lines)} are {_shorten_quote(line)}"
        yield _grade("repeated_lines", count), reason
    share = repetition_rate(text)
    reason = f"repeats: {share:.0%} of its {NGRAM_WORDS}-word runs"
    yield _grade(f"runs_{kind}", share), reason


def _check_content(text: str, expected: Expectation, finished: bool) -> Iterator[Check]:
    """Check that an answer ends, is long and contains no template, and that the topic is kept."""
    if expected.is_answer:
        for marker in expected.template_markers:
            if marker in text:
                yield "FAIL", f"template: it contains {marker!r}"
        count, needed = len(text.split()), expected.min_words
        if not finished:
            yield "WEAK", "end: it reached the token limit"
        elif count < needed:
            reason = f"short: {plural(count, 'word')}, where {needed} or more are expected"
            yield "FAIL" if count < needed / 4 else "WEAK", reason
    if expected.topic_stems:
        words = _lower_words(text)
        count = sum(word.startswith(expected.topic_stems) for word in words)
        needed = 2 if len(words) > LONG_TEXT_WORDS else 1
        reason = f"topic: {count} of {plural(len(words), 'word')} on the prompt's topic"
        yield "OK" if count >= needed else "WEAK", reason


def _lower_words(text: str) -> list[str]:
    return [word.lower() for word in WORD_PATTERN.findall(text)]


def _shorten_quote(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 40 else f"{line[:39]}…")


def _check_python(text: str, expected: Expectation, finished: bool) -> Check:
    """Grade a continuation of `code_before`, or the code in an answer."""
    code = text
    if expected.is_answer:  # the code in fences, else from the first line that looks like code
        block = CODE_FENCE_PATTERN.search(text) or CODE_START_PATTERN.search(text)
        if block is None:
            return "FAIL", "Python: there is none in it"
        code = block[block.lastindex or 0]
    before, lines = expected.code_before, code.split("\n")
    full = _parse_python(before + code)
    num_parsed, tree = len(lines), full
    while not isinstance(tree, ast.Module) and num_parsed:
        num_parsed -= 1
        tree = _parse_python(before + "\n".join(lines[:num_parsed]))
    nodes = list(ast.walk(tree)) if isinstance(tree, ast.Module) else []
    function = next((node for node in nodes if isinstance(node, ast.FunctionDef)), None)
    body = function.body if function else []
    has_effect = any(isinstance(node, EFFECTFUL_NODES) for part in body for node in ast.walk(part))
    if not isinstance(full, ast.Module):
        rest = [line for line in lines[num_parsed:] if line.strip()]
        if not finished and _is_incomplete_python(before, lines):
            # a function may consist of one `try` or one call, which parses only when complete
            has_effect = has_effect or UNTERMINATED_STRING_MESSAGE not in full
        elif rest and not (has_effect and rest[0][0] not in " \t"):  # else text after the code
            good = sum(bool(line.strip()) for line in lines[:num_parsed])
            reason = f"Python: {good} of its {good + len(rest)} lines, then {full}"
            return "WEAK" if has_effect else "FAIL", reason
    return "OK" if has_effect else "WEAK", "Python: its function does nothing"


def _is_incomplete_python(before: str, lines: list[str]) -> bool:
    """Return whether the code is valid so far; its last line may end anywhere."""
    for part in (lines, lines[:-1]):
        result = _parse_python(before + "\n".join(part), ALLOW_INCOMPLETE_INPUT)
        if isinstance(result, ast.Module) or result == INCOMPLETE_MESSAGE:
            return any(map(str.strip, part))
    return False


def _parse_python(code: str, flags: int = 0) -> ast.Module | str:
    """Return the tree, or Python's message about the error."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about invalid escapes
            tree = compile(code, "text", "exec", ast.PyCF_ONLY_AST | flags)
    except SyntaxError as error:
        return error.msg.partition(" (detected at")[0]
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    assert isinstance(tree, ast.Module)
    return tree
