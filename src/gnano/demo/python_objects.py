"""The public functions, methods and classes of the standard library, read from its source.

They are parsed, not imported. An object that is defined twice, or that a decorator turns into
something else, is left out, so that its definition is what a caller finds.

`find_completion` finds a line that can be completed from the lines before: it is cut between two
adjacent tokens, and only where all names, strings and numbers after the cut also occur before it.
"""

import ast
import io
import keyword
import re
import textwrap
import tokenize
from collections import Counter
from collections.abc import Iterator
from copy import copy
from itertools import pairwise

from gnano.data.manifest import text_position
from gnano.demo.python_corpus import find_library_files, module_name, parse_source, read_source

# programs, which are not imported, and a module that setuptools replaces
EXCLUDED_MODULES = {"idlelib", "lib2to3", "turtledemo", "distutils"}
# they leave a function's arguments as they are written
TRANSPARENT_DECORATORS = {"classmethod", "staticmethod", "abstractmethod", "abc.abstractmethod"}
SENTENCE_LENGTHS = range(12, 161)  # characters of a docstring's first sentence
CONTEXT_LINES = 6  # lines shown before the one in question
LINE_LENGTHS = range(16, 80)  # characters of a line that is worth completing
MIN_COMPLETION_CHARS = 4  # characters after the cut
CONTENT_TOKENS = {tokenize.NAME, tokenize.STRING, tokenize.NUMBER}

DefinitionNode = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
SimpleStatement = ast.Assign | ast.AugAssign | ast.Return | ast.Expr | ast.Raise | ast.Delete


class PythonObject:
    """A function, method or class of a module."""

    def __init__(self, module: str, owner: str, node: DefinitionNode, lines: list[str]) -> None:
        self.module = module
        self.owner = owner  # a method's class; "" for what the module itself defines
        self.node = node
        self.lines = lines  # of the module; the first is line 0 here and line 1 in the tree
        self.name = node.name
        # the module or class that defines it, for example textwrap.TextWrapper
        self.scope = f"{module}.{owner}" if owner else module
        self.qualified_name = f"{self.scope}.{self.name}"
        self.docstring = ast.get_docstring(node) or ""
        paragraph = " ".join(re.split(r"\n\s*\n", self.docstring, maxsplit=1)[0].split())
        first = re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph, maxsplit=1)[0]
        plain = re.fullmatch(r"[A-Z][\w'-]*,? [^<>=]*[\w.!?)'\"`]", first)
        # the docstring's first sentence; "" if it does not begin with one
        self.summary = first if plain and len(first) in SENTENCE_LENGTHS else ""
        bare = copy(node)
        bare.body, bare.decorator_list = [], []
        self.definition = ast.unparse(bare)  # the opening line, for example `def dedent(text):`
        # a function's arguments for a caller in order, each with its default's source
        self.parameters: dict[str, str | None] = {}
        self.call = ""  # with all arguments; "" where this would not show the complete signature
        if isinstance(node, ast.ClassDef):
            self.kind = "class"
            return
        self.kind = "method" if owner else "function"
        args = copy(node.args)
        named = args.posonlyargs + args.args
        defaults = [None] * (len(named) - len(args.defaults)) + args.defaults
        pairs: list[tuple[ast.arg | None, ast.expr | None]] = list(
            zip(named, defaults, strict=True)
        )
        if owner and "staticmethod" not in _decorator_names(node):
            pairs, args.args = pairs[1:], args.args[1:]  # without self
        pairs.append((args.vararg, None))
        pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
        pairs.append((args.kwarg, None))
        self.parameters = {
            arg.arg: ast.unparse(value) if value else None for arg, value in pairs if arg
        }
        is_annotated = node.returns or ":" in self.definition[:-1]
        if not (args.posonlyargs or args.kwonlyargs or is_annotated):
            self.call = f"{self.name}({ast.unparse(args)})"

    def choose(self, key: str, count: int) -> int:
        """Return a number below `count` that the object and the key determine."""
        return text_position(f"{self.qualified_name}: {key}") % count

    @property
    def default(self) -> tuple[str, str] | None:
        """One of the arguments with a default, and this default."""
        defaults = [(name, value) for name, value in self.parameters.items() if value is not None]
        # most are None; another value makes a better question
        defaults = [each for each in defaults if each[1] != "None"] or defaults
        return defaults[self.choose("argument", len(defaults))] if defaults else None

    @property
    def base(self) -> str:
        """The only base of a class; "" for a subscript such as Generic[T] or a call's result."""
        bases = self.node.bases if isinstance(self.node, ast.ClassDef) else []
        is_plain = len(bases) == 1 and isinstance(bases[0], ast.Name | ast.Attribute)
        return ast.unparse(bases[0]) if is_plain else ""


def iter_python_objects() -> Iterator[PythonObject]:
    """Yield all objects, sorted by module, then in the order of their definitions."""
    for name, path in sorted(find_library_files().items()):
        module = module_name(name)
        parts = module.split(".")
        if parts[0] in EXCLUDED_MODULES or any(p[:1] == "_" or not p.isidentifier() for p in parts):
            continue
        source = read_source(path)
        # not splitlines(): to the parser a form feed does not end a line
        lines = source.split("\n")
        for node in _iter_unique_definitions(parse_source(source) or ast.Module([], [])):
            yield PythonObject(module, "", node, lines)
            if isinstance(node, ast.ClassDef):
                for inner in _iter_unique_definitions(node):
                    if not isinstance(inner, ast.ClassDef):
                        yield PythonObject(module, node.name, inner, lines)


def _iter_unique_definitions(parent: ast.Module | ast.ClassDef) -> Iterator[DefinitionNode]:
    found = [each for each in parent.body if isinstance(each, DefinitionNode)]
    times = Counter(node.name for node in found)
    for each in parent.body:
        if isinstance(each, ast.Delete):  # a helper that does not exist after the import
            times.update(target.id for target in each.targets if isinstance(target, ast.Name))
    for node in found:
        plain = isinstance(node, ast.ClassDef) or _decorator_names(node) <= TRANSPARENT_DECORATORS
        if times[node.name] == 1 and plain and not node.name.startswith("_"):
            yield node


def _decorator_names(node: DefinitionNode) -> set[str]:
    return {ast.unparse(each) for each in node.decorator_list}


def find_completion(obj: PythonObject) -> tuple[str, str] | None:
    """Return lines of a function, the last of them cut, and the rest of that line."""
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
    hidden = range(0)
    if ast.get_docstring(obj.node) is not None:
        text = obj.node.body[0]
        hidden = range(text.lineno, (text.end_lineno or 0) + 1)
    numbers = [n for n in range(obj.node.lineno, number + 1) if n not in hidden]
    lines = [obj.lines[n - 1].expandtabs() for n in numbers[-CONTEXT_LINES - 1 :]]
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
