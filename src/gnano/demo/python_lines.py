"""Finds the lines of a function that can be completed, or understood, from the lines before.

A line is cut between two adjacent tokens, and only where all names, strings and numbers after the
cut also occur before it, so that the rest can be found by reading.
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

CONTEXT_LINES = 6  # lines shown before the one in question
LINE_LENGTHS = range(16, 80)  # characters of a line that is worth completing
MIN_COMPLETION_CHARS = 4  # characters after the cut
CONTENT_TOKENS = {tokenize.NAME, tokenize.STRING, tokenize.NUMBER}
SimpleStatement = ast.Assign | ast.AugAssign | ast.Return | ast.Expr | ast.Raise | ast.Delete


def find_completion(obj: PythonObject) -> tuple[str, str] | None:
    """Return lines of a function, the last of them cut, and the rest of that line."""
    if isinstance(obj.node, ast.ClassDef):
        return None
    numbers = {
        node.lineno
        for node in ast.walk(obj.node)
        if isinstance(node, SimpleStatement) and _is_one_line(obj, node)
    }
    for number in sorted(numbers, key=lambda n: text_position(f"{obj.qualified_name} line {n}")):
        before, _, line = _code_context(obj, number).rpartition("\n")
        cuts = _find_cuts(before, line)
        if before and cuts:
            cut = cuts[text_position(f"{obj.qualified_name} cut") % len(cuts)]
            return f"{before}\n{line[:cut]}", line[cut:]
    return None


def find_raise(obj: PythonObject) -> tuple[str, str] | None:
    """Return lines of a function, the last of which raises an exception, and its name."""
    if isinstance(obj.node, ast.ClassDef):
        return None
    for node in ast.walk(obj.node):
        if isinstance(node, ast.Raise) and _is_one_line(obj, node):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            # a lower-case name may hold any exception
            if isinstance(raised, ast.Name) and raised.id[:1].isupper():
                return _code_context(obj, node.lineno), raised.id
    return None


def _is_one_line(obj: PythonObject, node: ast.stmt) -> bool:
    """Return whether the statement is all of one ASCII line, and not a docstring."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return False
    line = obj.lines[node.lineno - 1]
    is_all = line[node.col_offset : node.end_col_offset] == line.strip()
    return node.end_lineno == node.lineno and line.isascii() and is_all


def _code_context(obj: PythonObject, number: int) -> str:
    """Return the line and those before it, from the first that has the smallest indent."""
    lines = [line.expandtabs() for n, line in obj.code_lines if n <= number][-CONTEXT_LINES - 1 :]
    least = min(_indent(line) for line in lines if line.strip())
    while not lines[0].strip() or _indent(lines[0]) > least:
        lines.pop(0)
    return textwrap.dedent("\n".join(lines))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _find_cuts(before: str, line: str) -> list[int]:
    """Return where the line may be cut: the rest has a name, and no word that is new."""
    indent = _indent(line)
    if len(line) - indent not in LINE_LENGTHS:
        return []
    tokens = list(tokenize.generate_tokens(io.StringIO(line[indent:]).readline))
    cuts = []
    for number, (left, right) in enumerate(pairwise(tokens), 1):
        cut = indent + right.start[1]
        if left.end == right.start and len(line) - cut >= MIN_COMPLETION_CHARS:
            seen = f"{before}\n{line[:cut]}"
            words = [token.string for token in tokens[number:] if token.type in CONTENT_TOKENS]
            words = [word for word in words if not keyword.iskeyword(word)]
            if any(map(str.isidentifier, words)) and all(_has_word(seen, w) for w in words):
                cuts.append(cut)
    return cuts


def _has_word(text: str, word: str) -> bool:
    """Return whether the text has this word, not only as a part of another one."""
    return word in text and bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text))
