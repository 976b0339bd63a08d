"""Text in files and pipes is UTF-8 on every machine, with any locale."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import gnano

TEXT = ("open", "read_text", "write_text", "fdopen", "NamedTemporaryFile")
ELSEWHERE = ("os.open", "safe_open", "Image.open", "self._open", "webbrowser.open")


def without_encoding(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        given = [word.arg for word in node.keywords]
        if name not in TEXT and "text" not in given:
            continue
        called = ast.unparse(node.func)
        arguments = [ast.unparse(argument) for argument in node.args]
        text = any(
            word.arg == "text" and ast.unparse(word.value) == "True" for word in node.keywords
        )
        mode = any(re.search(r"'[rwxa+]*b[rwxa+]*'", word) for word in arguments)
        if (text and "encoding" not in given) or (
            name in TEXT
            and called not in ELSEWHERE
            and not (mode or "encoding" in given or "'utf-8'" in arguments)
        ):
            yield node


def test_calls_without_encoding_are_found() -> None:
    bad = "p.read_text(); p.write_text(x); p.open(); p.open('a'); open(p); run(c, text=True)"
    assert len(list(without_encoding(ast.parse(bad)))) == 6
    good = (
        "p.read_text('utf-8'); p.open('rb'); p.open('a', encoding='utf-8'); os.open(p, 1);"
        "write_bytes(p); gzip.open(p, 'rt', encoding='utf-8-sig')"
    )
    assert not list(without_encoding(ast.parse(good)))


def test_every_text_file_and_pipe_names_its_encoding() -> None:
    package = Path(gnano.__file__).parent
    found = []
    for file in sorted(package.rglob("*.py")):
        for node in without_encoding(ast.parse(file.read_text("utf-8"))):
            line = ast.unparse(node)
            # functions of utils.files, and datatrove's files
            if not line.startswith(("write_text(", "read_text(")) and "logging_dir" not in line:
                found.append(f"{file.relative_to(package)}:{node.lineno} {line}")
    assert found == []
