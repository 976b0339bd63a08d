"""The public functions, methods and classes of the standard library, read from its source.

They are parsed, not imported. An object that is defined twice, or that a decorator turns into
something else, is left out, so that its definition is what a caller finds.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from gnano.demo.python_corpus import find_library_files, module_name, parse_source, read_source

# programs, which are not imported, and a module that setuptools replaces
EXCLUDED_MODULES = {"idlelib", "lib2to3", "turtledemo", "distutils"}
# they leave a function's arguments as they are written
TRANSPARENT_DECORATORS = {"classmethod", "staticmethod", "abstractmethod", "abc.abstractmethod"}
SENTENCE_LENGTHS = range(12, 161)  # characters of a docstring's first sentence

DefinitionNode = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, eq=False)  # equal by identity: syntax trees have no equality
class PythonObject:
    """A function, method or class of a module."""

    module: str
    owner: str  # a method's class; "" for what the module itself defines
    node: DefinitionNode
    lines: list[str]  # of the module; the first is line 0 here and line 1 in the tree

    @property
    def name(self) -> str:
        """The name alone."""
        return self.node.name

    @property
    def scope(self) -> str:
        """The module or class that defines it, for example textwrap.TextWrapper."""
        return f"{self.module}.{self.owner}" if self.owner else self.module

    @property
    def qualified_name(self) -> str:
        """The name with its module and class."""
        return f"{self.scope}.{self.name}"

    @property
    def kind(self) -> str:
        """The word "class", "method" or "function"."""
        if isinstance(self.node, ast.ClassDef):
            return "class"
        return "method" if self.owner else "function"

    @cached_property
    def docstring(self) -> str:
        """The complete docstring; "" without one."""
        return ast.get_docstring(self.node) or ""

    @cached_property
    def summary(self) -> str:
        """The docstring's first sentence; "" if it does not begin with one."""
        text = " ".join(re.split(r"\n\s*\n", self.docstring, maxsplit=1)[0].split())
        first = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text, maxsplit=1)[0]
        plain = re.fullmatch(r"[A-Z][\w'-]*,? [^<>=]*[\w.!?)'\"`]", first)
        return first if plain and len(first) in SENTENCE_LENGTHS else ""

    @cached_property
    def definition(self) -> str:
        """The line that opens its definition, for example `def dedent(text):`."""
        if isinstance(self.node, ast.ClassDef):
            inside = [ast.unparse(each) for each in [*self.node.bases, *self.node.keywords]]
            return f"class {self.name}({', '.join(inside)}):" if inside else f"class {self.name}:"
        word = "async def" if isinstance(self.node, ast.AsyncFunctionDef) else "def"
        result = f" -> {ast.unparse(self.node.returns)}" if self.node.returns else ""
        return f"{word} {self.name}({ast.unparse(self.node.args)}){result}:"

    @cached_property
    def parameters(self) -> dict[str, str | None]:
        """The names of a caller's arguments in order, each with its default's source or None."""
        if isinstance(self.node, ast.ClassDef):
            return {}
        given = self.node.args
        plain = given.posonlyargs + given.args
        defaults = [None] * (len(plain) - len(given.defaults)) + given.defaults
        pairs: list[tuple[ast.arg, ast.expr | None]] = list(zip(plain, defaults, strict=True))
        if self.owner and "staticmethod" not in decorator_names(self.node):
            pairs = pairs[1:]  # self
        pairs += [(given.vararg, None)] if given.vararg else []
        pairs += list(zip(given.kwonlyargs, given.kw_defaults, strict=True))
        pairs += [(given.kwarg, None)] if given.kwarg else []
        return {name.arg: ast.unparse(value) if value else None for name, value in pairs}

    @cached_property
    def call(self) -> str:
        """A call with all arguments; "" where this would not show the complete signature."""
        if isinstance(self.node, ast.ClassDef):
            return ""
        given = self.node.args
        is_annotated = self.node.returns or ":" in self.definition[:-1]
        if given.posonlyargs or given.kwonlyargs or is_annotated:
            return ""
        starred = (given.vararg, "*"), (given.kwarg, "**")
        stars = {argument.arg: star for argument, star in starred if argument}
        words = (
            f"{stars.get(name, '')}{name}" if value is None else f"{name}={value}"
            for name, value in self.parameters.items()
        )
        return f"{self.name}({', '.join(words)})"

    @cached_property
    def code_lines(self) -> list[tuple[int, str]]:
        """Its numbered lines without those of the docstring; numbers count from 1."""
        first, last = self.node.lineno, self.node.end_lineno or 0
        hidden = range(0)
        if ast.get_docstring(self.node) is not None:
            text = self.node.body[0]
            hidden = range(text.lineno, (text.end_lineno or 0) + 1)
        numbers = (number for number in range(first, last + 1) if number not in hidden)
        return [(number, self.lines[number - 1]) for number in numbers]


def iter_python_objects() -> Iterator[PythonObject]:
    """Yield all objects, sorted by module, then in the order of their definitions."""
    for name, path in sorted(find_library_files().items()):
        module = module_name(name)
        parts = module.split(".")
        if parts[0] in EXCLUDED_MODULES or any(p[:1] == "_" or not p.isidentifier() for p in parts):
            continue
        source = read_source(path)
        tree = parse_source(source)
        if tree is not None:
            # not splitlines(): to the parser a form feed does not end a line
            lines = source.split("\n")
            for owner, node in _iter_definitions(tree):
                yield PythonObject(module, owner, node, lines)


def _iter_definitions(tree: ast.Module) -> Iterator[tuple[str, DefinitionNode]]:
    for node in _iter_unique_definitions(tree):
        yield "", node
        if isinstance(node, ast.ClassDef):
            for inner in _iter_unique_definitions(node):
                if not isinstance(inner, ast.ClassDef):
                    yield node.name, inner


def _iter_unique_definitions(parent: ast.Module | ast.ClassDef) -> Iterator[DefinitionNode]:
    found = [each for each in parent.body if isinstance(each, DefinitionNode)]
    times = Counter(node.name for node in found)
    for each in parent.body:
        if isinstance(each, ast.Delete):  # a helper that does not exist after the import
            times.update(target.id for target in each.targets if isinstance(target, ast.Name))
    for node in found:
        plain = isinstance(node, ast.ClassDef) or decorator_names(node) <= TRANSPARENT_DECORATORS
        if times[node.name] == 1 and plain and not node.name.startswith("_"):
            yield node


def decorator_names(node: DefinitionNode) -> set[str]:
    """Return the source of the definition's decorators."""
    return {ast.unparse(each) for each in node.decorator_list}
