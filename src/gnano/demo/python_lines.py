"""Which line of a function can be completed, or understood, from the few lines before it?

A line is cut where two tokens touch, and only where all names, texts and numbers of its rest
stand before it: then the rest is in sight, and to find it is a matter of reading.
"""

import ast
import io
import keyword
import re
import textwrap
import tokenize
from itertools import pairwise

from gnano.data.manifest import text_position
from gnano.demo.python_objects import PythonObject

CONTEXT_LINES = 6  # lines that are shown before the one in question
LINE_LENGTHS = range(16, 80)  # characters of a line that is worth completing
MIN_COMPLETION_CHARS = 4  # characters of its rest
CONTENT_TOKENS = {tokenize.NAME, tokenize.STRING, tokenize.NUMBER}
SimpleStatement = ast.Assign | ast.AugAssign | ast.Return | ast.Expr | ast.Raise | ast.Delete


def find_completion(obj: PythonObject) -> tuple[str, str] | None:
    """Lines of a function of which the last breaks off, and the rest of it."""
    if isinstance(obj.node, ast.ClassDef):
        return None
    nodes = (
        node
        for node in ast.walk(obj.node)
        if isinstance(node, SimpleStatement) and _fills_one_line(obj, node)
    )
    numbers = {node.lineno for node in nodes}
    for number in sorted(
        numbers, key=lambda number: text_position(f"{obj.qualified_name} line {number}")
    ):
        before, _, line = _code_context(obj, number).rpartition("\n")
        cuts = _find_cuts(before, line)
        if before and cuts:
            at = cuts[text_position(f"{obj.qualified_name} cut") % len(cuts)]
            return f"{before}\n{line[:at]}", line[at:]
    return None


def find_raise(obj: PythonObject) -> tuple[str, str] | None:
    """Lines of a function of which the last raises an exception, and its name."""
    if isinstance(obj.node, ast.ClassDef):
        return None
    for node in ast.walk(obj.node):
        if isinstance(node, ast.Raise) and _fills_one_line(obj, node):
            what = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            # another name may be that of any exception
            if isinstance(what, ast.Name) and what.id[:1].isupper():
                return _code_context(obj, node.lineno), what.id
    return None


def _fills_one_line(obj: PythonObject, node: ast.stmt) -> bool:
    """Does it fill one line, alone, and is it more than a docstring?"""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return False
    line = obj.lines[node.lineno - 1]
    alone = line[node.col_offset : node.end_col_offset] == line.strip()
    return node.end_lineno == node.lineno and line.isascii() and alone


def _code_context(obj: PythonObject, number: int) -> str:
    """The line and those before it, down to where the first is indented no more than the rest."""
    before = [line.expandtabs() for at, line in obj.code_lines if at <= number][
        -CONTEXT_LINES - 1 :
    ]
    least = min(_indent(line) for line in before if line.strip())
    while not before[0].strip() or _indent(before[0]) > least:
        before.pop(0)
    return textwrap.dedent("\n".join(before))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _find_cuts(before: str, line: str) -> list[int]:
    """Where the line may break off, so that its rest has a name, and nothing that is new."""
    indent = _indent(line)
    if len(line) - indent not in LINE_LENGTHS:
        return []
    tokens = list(tokenize.generate_tokens(io.StringIO(line[indent:]).readline))
    cuts = []
    for number, (one, two) in enumerate(pairwise(tokens), 1):
        at = indent + two.start[1]
        if one.end == two.start and len(line) - at >= MIN_COMPLETION_CHARS:
            seen = f"{before}\n{line[:at]}"
            words = [token.string for token in tokens[number:] if token.type in CONTENT_TOKENS]
            words = [word for word in words if not keyword.iskeyword(word)]
            if any(map(str.isidentifier, words)) and all(
                _contains_word(seen, word) for word in words
            ):
                cuts.append(at)
    return cuts


def _contains_word(text: str, word: str) -> bool:
    """Not as a part of another word."""
    return word in text and bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text))
