"""How far is a text Python? Its longest beginning of whole lines that parses, and what is left.

counts = {}                        good
for word in text.split():          good
    counts[word] = counts.g        the limit cut it: counts for nothing
"""

import ast
import re
import warnings
from typing import NamedTuple

ALLOW_UNFINISHED = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT, with which the interpreter's prompt waits
UNFINISHED = "incomplete input"  # what Python says of a text that could go on and be right
DOCSTRING = "unterminated triple-quoted"
FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
OPENING = re.compile(r"^(?:def|class|import|from|@|async def)\b.*", re.MULTILINE | re.DOTALL)
ACTS = (
    *(ast.Return, ast.Yield, ast.Raise, ast.Assert, ast.Call),
    *(ast.Assign, ast.AugAssign, ast.AnnAssign),
)


class Reading(NamedTuple):
    good: int  # lines that parse, without empty ones
    broken: int  # lines after them that have no excuse
    fault: str  # Python's own word for what is wrong
    acts: bool  # does the first function do anything? Docstrings, names and `pass` do not


def code_in(answer: str) -> str | None:
    """What stands between fences, else from the first line that begins like code to the end."""
    block = FENCE.search(answer) or OPENING.search(answer)
    return block[block.lastindex or 0] if block else None


def read_python(text: str, before: str = "", cut: bool = False) -> Reading:
    """Of a text that goes on with the code `before`.

    Excused are what the limit has cut, and all that follows the function at a line's start.
    """
    lines = text.split("\n")
    whole = _parsed(before + text)
    kept, tree = len(lines), whole
    while not isinstance(tree, ast.Module) and kept:
        kept -= 1
        tree = _parsed(before + "\n".join(lines[:kept]))
    acts = isinstance(tree, ast.Module) and _acts(tree)
    good = sum(bool(line.strip()) for line in lines[:kept])
    rest = [line for line in lines[kept:] if line.strip()]
    if isinstance(whole, ast.Module):
        return Reading(good, 0, "", acts)
    if cut and _unfinished(before, lines):
        # a whole function may be one `try` or one call, which is none before its end
        return Reading(good + len(rest), 0, whole, acts or DOCSTRING not in whole)
    follows = acts and rest[0][0] not in " \t"
    return Reading(good, 0 if follows else len(rest), whole, acts)


def _unfinished(before: str, lines: list[str]) -> bool:
    """Is it right as far as it goes? The last line may break off anywhere, as within a name."""
    for begun in (lines, lines[:-1]):
        found = _parsed(before + "\n".join(begun), ALLOW_UNFINISHED)
        if isinstance(found, ast.Module) or found == UNFINISHED:
            return any(map(str.strip, begun))
    return False


def _parsed(code: str, flags: int = 0) -> ast.Module | str:
    """The tree, or what is wrong."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that will be errors one day
            tree = compile(code, "text", "exec", ast.PyCF_ONLY_AST | flags)
    except SyntaxError as error:
        return error.msg.partition(" (detected at")[0]
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__
    assert isinstance(tree, ast.Module)
    return tree


def _acts(tree: ast.Module) -> bool:
    function = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), None)
    return function is not None and any(
        isinstance(node, ACTS) for statement in function.body for node in ast.walk(statement)
    )
