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


def iter_python_prose() -> Iterator[Document]:
    """Yield the prose: language reference, READMEs, then docstrings. Files are read only once."""
    cached = _prose_cache()
    cached[0], documents = tee(cached[0])
    return documents


@cache
def _prose_cache() -> list[Iterator[Document]]:
    documents = (Document(text, group) for text, group in _iter_prose())
    return [(document for document in documents if len(document.text) >= MIN_CHARS)]


def _iter_prose() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield _keep_prose_paragraphs(topics[name]), f"topic {name}"
    for distribution in _find_dependencies():
        readme = str(distribution.metadata.json.get("description") or "")
        yield _keep_prose_paragraphs(readme), f"readme {distribution.metadata['Name']}"
    seen: set[str] = set()
    for name, path in _sort_by_name_hash(find_library_files() | _find_dependency_files()):
        yield _extract_docstrings(name, path, seen), name


def iter_python_code() -> Iterator[Document]:
    """Yield the standard library's source, one document per file."""
    for name, path in _sort_by_name_hash(find_library_files()):
        if len(source := read_source(path)) >= MIN_CHARS:
            yield Document(source, name)


def identify_installation() -> str:
    """Hash the versions and the files' names and sizes, which identify the text of both sources.

    The same packages have the same identity on every machine.
    """
    from pydoc_data.topics import topics

    files = find_library_files() | _find_dependency_files()
    content = [
        platform.python_version(),
        sorted((name, _file_size(path)) for name, path in files.items()),
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


def _find_dependency_files() -> dict[str, Path]:
    """Return the Python files of all dependencies, by their name inside the installation."""
    return {
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


def _sort_by_name_hash(files: dict[str, Path]) -> list[tuple[str, Path]]:
    """Sort by a hash of the names, so that a budget takes its share of every package."""
    return sorted(files.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # listed by a package, but missing
        return 0


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


def _extract_docstrings(name: str, path: Path, seen: set[str]) -> str:
    """Return all docstrings of a module under the names they document, except those in `seen`."""
    source = read_source(path)
    if '"""' not in source:  # parsing is slow
        return ""
    tree = parse_source(source)
    if tree is None:
        return ""
    parts = []
    for qualified, node in _iter_documented(tree, module_name(name)):
        text = _keep_prose_paragraphs(ast.get_docstring(node) or "")
        if text and text not in seen:
            seen.add(text)
            parts.append(f"{qualified}\n\n{text}")
    return "\n\n".join(parts)


def _keep_prose_paragraphs(text: str) -> str:
    """Return the paragraphs of a text that are made of sentences."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        paragraph = paragraph.strip("\n")
        plain = sum(c.isalpha() or c in " .,\n" for c in paragraph)
        if len(paragraph) >= MIN_CHARS and plain >= MIN_LETTERS * len(paragraph):
            kept.append(paragraph + "\n")
    return "\n".join(kept)


DocumentedNode = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _iter_documented(node: DocumentedNode, name: str) -> Iterator[tuple[str, DocumentedNode]]:
    yield name, node
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _iter_documented(child, f"{name}.{child.name}")


PROSE = SourceGenerator(iter_python_prose, identify_installation)
CODE = SourceGenerator(iter_python_code, identify_installation)
