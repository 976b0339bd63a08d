"""Two sources of text from the Python installation itself: prose and code, without a download.

Prose: the docstrings of the standard library and of this package's dependencies, the language
reference in `pydoc_data.topics`, and the packages' READMEs; of each only the paragraphs of
sentences, without examples, tables and badges. Code: the standard library's source. Files are
parsed, not imported, their order depends on their names only, and repeated text is dropped, so
the same packages give the same corpus anywhere.

A module's docstrings are also part of its source. Both have the file's name as their group, so
that one is never training text while the other is held out.
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
from copy import copy
from functools import cache
from importlib import metadata
from itertools import tee
from pathlib import Path

from gnano.data.generators import SourceGenerator
from gnano.data.readers import Document

PACKAGE = "auto-g-nano"
MIN_CHARS = 60  # shorter paragraphs are labels, and shorter documents no text
MIN_LETTERS = 0.9  # minimum share of letters, spaces and full stops in a paragraph
# tests, and packages' copies of other packages
EXCLUDED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages"}
EXCLUDED_FOLDERS |= {"__pycache__", "_distutils", "_vendor"}
# tables of bytes or of topics, not hand-written code
EXCLUDED_PACKAGES = {"encodings", "pydoc_data", "unidata", "lib-dynload"}


DocumentedNode = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def iter_python_prose() -> Iterator[Document]:
    """Yield the prose: language reference, READMEs, then docstrings. Files are read only once."""
    return copy(_shared_prose())  # it starts where the original is, which nobody advances


@cache
def _shared_prose() -> Iterator[Document]:
    (documents,) = tee((d for d in _iter_prose() if len(d.text) >= MIN_CHARS), 1)
    return documents


def _iter_prose() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield Document(_keep_prose_paragraphs(topics[name]), f"topic {name}")
    for distribution in _find_dependencies():
        readme = str(distribution.metadata.json.get("description") or "")
        name = f"readme {distribution.metadata['Name']}"
        yield Document(_keep_prose_paragraphs(readme), name)
    seen: set[str] = set()
    for name, path in sorted(_find_all_files().items(), key=_name_hash):
        source = read_source(path)
        tree = parse_source(source) if '"""' in source else None  # parsing is slow
        parts = []
        for qualified, node in _iter_documented(tree, module_name(name)) if tree else ():
            text = _keep_prose_paragraphs(ast.get_docstring(node) or "")
            if text and text not in seen:
                seen.add(text)
                parts.append(f"{qualified}\n\n{text}")
        yield Document("\n\n".join(parts), name)


def _iter_documented(node: DocumentedNode, name: str) -> Iterator[tuple[str, DocumentedNode]]:
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _iter_documented(child, f"{name}.{child.name}")


def _keep_prose_paragraphs(text: str) -> str:
    """Return the paragraphs of a text that are made of sentences."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = paragraph.strip("\n")
        plain = sum(c.isalpha() or c in " .,\n" for c in paragraph)
        if len(paragraph) >= MIN_CHARS and plain >= MIN_LETTERS * len(paragraph):
            kept.append(paragraph + "\n")
    return "\n".join(kept)


def iter_python_code() -> Iterator[Document]:
    """Yield the standard library's source, one document per file."""
    for name, path in sorted(find_library_files().items(), key=_name_hash):
        if len(source := read_source(path)) >= MIN_CHARS:
            yield Document(source, name)


def _name_hash(file: tuple[str, Path]) -> bytes:
    """Return a sort key of no meaning, so that a budget takes its share of every package."""
    return hashlib.sha256(file[0].encode()).digest()


def identify_installation() -> str:
    """Hash the versions and the files' names and sizes, which identify the text of both sources.

    The same packages have the same identity on every machine.
    """
    from pydoc_data.topics import topics

    content = [
        platform.python_version(),
        # a file may be listed by a package, but missing
        sorted((n, p.stat().st_size if p.is_file() else 0) for n, p in _find_all_files().items()),
        [(each.metadata["Name"], each.version) for each in _find_dependencies()],
        sorted(topics.items()),
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def find_library_files() -> dict[str, Path]:
    """Return the standard library's modules of hand-written code, by relative name."""
    top = Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for folder, inner, names in os.walk(top):
        # site-packages is a subfolder, too, and may hold a hundred times as much
        inner[:] = set(inner) - EXCLUDED_FOLDERS - EXCLUDED_PACKAGES
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        found.update({str(path.relative_to(top)): path for path in paths})
    return found


def _find_all_files() -> dict[str, Path]:
    """Return the library's files and all dependencies', by their name inside the installation."""
    return find_library_files() | {
        str(file): Path(str(file.locate()))
        for distribution in _find_dependencies()
        for file in distribution.files or ()
        if file.suffix == ".py"
        and not EXCLUDED_FOLDERS & set(file.parts)
        and ".." not in file.parts
    }


@cache
def _find_dependencies() -> tuple[metadata.Distribution, ...]:
    """Return the distributions that this package requires, directly or not, without extras."""
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


def read_source(path: Path) -> str:
    """Return the text of a Python file; "" if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):  # a few files are latin-1 on purpose
        return ""


def parse_source(source: str) -> ast.Module | None:
    """Return the syntax tree; None if the source is not valid in this Python version."""
    try:
        with warnings.catch_warnings():  # invalid escapes in strings
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, RecursionError):
        return None


def module_name(name: str) -> str:
    """Return the module that the file of this relative name holds."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


PROSE = SourceGenerator(iter_python_prose, identify_installation)
CODE = SourceGenerator(iter_python_code, identify_installation)
