"""How far is a text Python? Its longest beginning of whole lines that parses, and what is left.

counts = {}                        good
for word in text.split():          good
    counts[word] = counts.g        the limit cut it: counts for nothing
"""

import ast
import re
import warnings
from typing import NamedTuple

CUT = 12  # lines that the limit may leave unfinished, such as a call's or a docstring's
UNFINISHED = re.compile("never closed|unterminated triple|expected an indented|expected 'except'")
FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
OPENING = re.compile(r"^(?:def|class|import|from|@|async def)\b.*", re.MULTILINE | re.DOTALL)
ACTS = ast.Return | ast.Yield | ast.Raise | ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Call


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
    fault = "" if isinstance(whole, ast.Module) else whole
    excused = acts and rest and (rest[0][0] not in " \t" or (cut and _begun(before, lines, rest)))
    return Reading(good, 0 if excused else len(rest), fault, acts)


def _begun(before: str, lines: list[str], rest: list[str]) -> bool:
    """Is the rest, which does not parse, the beginning of something that would?"""
    if len(rest) == 1:
        return True
    found = _parsed(before + "\n".join(lines[:-1]))  # the last line may break off anywhere
    return isinstance(found, str) and bool(UNFINISHED.search(found)) and len(rest) <= CUT


def _parsed(code: str) -> ast.Module | str:
    """The tree, or what is wrong."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that will be errors one day
            return ast.parse(code)
    except SyntaxError as error:
        return error.msg.partition(" (detected at")[0]
    except (ValueError, RecursionError, MemoryError) as error:
        return str(error) or type(error).__name__


def _acts(tree: ast.Module) -> bool:
    function = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)), None)
    return function is not None and any(
        isinstance(node, ACTS) for statement in function.body for node in ast.walk(statement)
    )
