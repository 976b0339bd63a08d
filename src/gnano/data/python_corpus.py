"""What text lies on every machine that can run this? The Python installation itself.

Prose: the docstrings of the standard library and of our dependencies, the language
reference in `pydoc_data.topics`, and the packages' own READMEs; of each the paragraphs that
are sentences, not the examples, tables and badges between them. Code: the standard
library's source. Nothing is imported to be read, files are taken in an order drawn from
their names alone, and text seen before is dropped, so the same packages give the same
corpus anywhere.

A module's docstrings are also part of its source. Both carry the file's name as their
group, so that one is never training text while the other is held out.
"""

import ast
import hashlib
import json
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from gnano.data.documents import Document

PACKAGE = "auto-g-nano"
SHORTEST = 60  # characters; a shorter paragraph is a label, and a shorter document no text
LETTERS = 0.9  # least share of letters, spaces and full stops in a paragraph of sentences
NOT_LIBRARY = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
NOT_LIBRARY |= {"_distutils", "_vendor"}  # other packages' copies of what is elsewhere
# tables of bytes or of topics, not code that anyone writes
NOT_CODE = {"encodings", "pydoc_data", "unidata", "lib-dynload"}


@lru_cache(maxsize=2)
def python_prose(max_bytes: int) -> tuple[Document, ...]:
    """About so many bytes of prose: language reference, READMEs, then docstrings."""
    from pydoc_data.topics import topics

    seen: set[str] = set()

    def every() -> Iterator[Document]:
        for name in sorted(topics):
            yield Document(_sentences(topics[name]), f"topic {name}")
        for distribution in _dependencies():
            text = str(distribution.metadata.json.get("description") or "")
            yield Document(_sentences(text), f"readme {distribution.metadata['Name']}")
        for name, path in _shuffled(library_files() | _dependency_files()):
            yield Document(_docstrings(name, path, seen), name)

    return _take(every(), max_bytes)


@lru_cache(maxsize=2)
def python_code(max_bytes: int) -> tuple[Document, ...]:
    """About so many bytes of the standard library's source, a document a file."""
    return _take(
        (Document(source_of(path), name) for name, path in _shuffled(library_files())), max_bytes
    )


def identity() -> str:
    """Stands for the text that both would give, without reading it: the same packages have the
    same identity on every machine. What a file holds is taken from its name and size."""
    from pydoc_data.topics import topics

    files = library_files() | _dependency_files()
    content = [
        platform.python_version(),
        sorted((name, _size(path)) for name, path in files.items()),
        [(each.metadata["Name"], each.version) for each in _dependencies()],
        sorted(topics.items()),
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def _take(documents: Iterator[Document], max_bytes: int) -> tuple[Document, ...]:
    taken = []
    total = 0
    for document in documents:
        if total >= max_bytes:
            break
        if len(document.text) >= SHORTEST:
            taken.append(document)
            total += len(document.text.encode())
    return tuple(taken)


def library_files() -> dict[str, Path]:
    """The standard library's modules that hold code worth reading, by relative name."""
    top = Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for folder, inner, names in os.walk(top):
        # site-packages lie in here too, and may hold a hundred times as much
        inner[:] = set(inner) - NOT_LIBRARY - NOT_CODE
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        found.update({str(path.relative_to(top)): path for path in paths})
    return found


def _dependency_files() -> dict[str, Path]:
    """The Python files of all we depend on, by their name inside the installation."""
    return {
        str(file): Path(str(file.locate()))
        for distribution in _dependencies()
        for file in distribution.files or ()
        if file.suffix == ".py" and not NOT_LIBRARY & set(file.parts) and ".." not in file.parts
    }


@lru_cache(maxsize=1)
def _dependencies() -> tuple[metadata.Distribution, ...]:
    """The distributions our package needs, and what they need in turn; extras left out."""
    found: dict[str, metadata.Distribution] = {}
    names = [PACKAGE]
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform
            continue
        for requirement in found[name].requires or ():
            if "extra ==" not in requirement:
                names.append(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
    return tuple(found[name] for name in sorted(found) if name != PACKAGE)


def _shuffled(files: dict[str, Path]) -> list[tuple[str, Path]]:
    """In an order drawn from the names, so that a budget cuts through all packages alike."""
    return sorted(files.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # on a package's list, but not there
        return 0


def source_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):  # a few files are latin-1 on purpose
        return ""


def tree_of(source: str) -> ast.Module | None:
    """None where it is no Python of this version."""
    try:
        with warnings.catch_warnings():  # invalid escapes in other people's strings
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, RecursionError):
        return None


def module_of(name: str) -> str:
    """The module that the file of this relative name holds."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _docstrings(name: str, path: Path, seen: set[str]) -> str:
    """All docstrings of a module under the names they document; what was seen is left out."""
    source = source_of(path)
    if '"""' not in source:  # parsing is what costs here
        return ""
    tree = tree_of(source)
    if tree is None:
        return ""
    parts = []
    for qualified, node in _documented(tree, module_of(name)):
        text = _sentences(ast.get_docstring(node) or "")
        if text and text not in seen:
            seen.add(text)
            parts.append(f"{qualified}\n\n{text}")
    return "\n\n".join(parts)


def _sentences(text: str) -> str:
    """The paragraphs of a text that are made of sentences."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = paragraph.strip("\n")
        plain = sum(c.isalpha() or c in " .,\n" for c in paragraph)
        if len(paragraph) >= SHORTEST and plain >= LETTERS * len(paragraph):
            kept.append(paragraph + "\n")
    return "\n".join(kept)


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(node: Documented, name: str) -> Iterator[tuple[str, Documented]]:
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, f"{name}.{child.name}")
