"""Text that is stored on every machine: the Python installation itself.

Prose: the docstrings of the standard library and of our dependencies, the language reference in
`pydoc_data.topics`, and the packages' own READMEs; of each the paragraphs that are sentences, not
the examples, tables and badges between them. Code: the standard library's source. Nothing is
imported to be read, files are taken in an order drawn from their names alone, and text seen
before is dropped, so the same packages give the same corpus anywhere.

A module's docstrings are also part of its source. Both carry the file's name as their group, so
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
from itertools import chain, tee
from pathlib import Path

from gnano.data.generators import SourceGenerator
from gnano.data.readers import Document

PACKAGE = "auto-g-nano"
MIN_CHARS = 60  # a shorter paragraph is a label, and a shorter document no text
MIN_LETTERS = 0.9  # least share of letters, spaces and full stops in a paragraph of sentences
# other people's tests, and packages' copies of what is elsewhere
EXCLUDED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
EXCLUDED_FOLDERS |= {"_distutils", "_vendor"}
# tables of bytes or of topics, not code that anyone writes
EXCLUDED_PACKAGES = {"encodings", "pydoc_data", "unidata", "lib-dynload"}


def iter_python_prose() -> Iterator[Document]:
    """Yield the prose: language reference, READMEs, then docstrings. It is read only once."""
    kept = _prose_cache()
    kept[0], documents = tee(kept[0])
    return documents


@cache
def _prose_cache() -> list[Iterator[Document]]:
    return [_iter_prose()]


def _iter_prose() -> Iterator[Document]:
    from pydoc_data.topics import topics

    seen: set[str] = set()
    documents = chain(
        (
            Document(_keep_prose_paragraphs(topics[name]), f"topic {name}")
            for name in sorted(topics)
        ),
        (
            Document(_keep_prose_paragraphs(text), f"readme {name}")
            for name, text in _iter_readmes()
        ),
        (
            Document(_extract_docstrings(name, path, seen), name)
            for name, path in _sort_by_name_hash(find_library_files() | _find_dependency_files())
        ),
    )
    return (document for document in documents if len(document.text) >= MIN_CHARS)


def iter_python_code() -> Iterator[Document]:
    """Yield the standard library's source, a document a file."""
    documents = (
        Document(read_source(path), name) for name, path in _sort_by_name_hash(find_library_files())
    )
    return (document for document in documents if len(document.text) >= MIN_CHARS)


def identify_installation() -> str:
    """Identify the text of both without reading it, by versions and the files' names and sizes.

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
    """The standard library's modules that hold code worth reading, by relative name."""
    top = Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for folder, inner, names in os.walk(top):
        # site-packages lie in here too, and may hold a hundred times as much
        inner[:] = set(inner) - EXCLUDED_FOLDERS - EXCLUDED_PACKAGES
        paths = (Path(folder, name) for name in names if name.endswith(".py"))
        found.update({str(path.relative_to(top)): path for path in paths})
    return found


def _find_dependency_files() -> dict[str, Path]:
    """The Python files of all we depend on, by their name inside the installation."""
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


def _iter_readmes() -> Iterator[tuple[str, str]]:
    for distribution in _find_dependencies():
        text = distribution.metadata.json.get("description") or ""
        yield distribution.metadata["Name"], str(text)


def _sort_by_name_hash(files: dict[str, Path]) -> list[tuple[str, Path]]:
    """In an order drawn from the names, so that a budget cuts through all packages alike."""
    return sorted(files.items(), key=lambda item: hashlib.sha256(item[0].encode()).digest())


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # on a package's list, but not there
        return 0


def read_source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):  # a few files are latin-1 on purpose
        return ""


def parse_source(source: str) -> ast.Module | None:
    """None where it is no Python of this version."""
    try:
        with warnings.catch_warnings():  # invalid escapes in other people's strings
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, RecursionError):
        return None


def module_name(name: str) -> str:
    """Return the module that the file of this relative name holds."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _extract_docstrings(name: str, path: Path, seen: set[str]) -> str:
    """All docstrings of a module under the names they document; what was seen is left out."""
    source = read_source(path)
    if '"""' not in source:  # parsing is what costs here
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
    """The paragraphs of a text that are made of sentences."""
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
