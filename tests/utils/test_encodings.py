"""Text in files and pipes is UTF-8 on every machine, whatever its locale says."""

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
        called = ast.unparse(node.func)
        given = [word.arg for word in node.keywords]
        told = [ast.unparse(argument) for argument in node.args]
        text = any(
            word.arg == "text" and ast.unparse(word.value) == "True" for word in node.keywords
        )
        mode = any(re.search(r"'[rwxa+]*b[rwxa+]*'", word) for word in told)
        if (text and "encoding" not in given) or (
            called.split(".")[-1] in TEXT
            and called not in ELSEWHERE
            and not (mode or "encoding" in given or "'utf-8'" in told)
        ):
            yield node


def test_the_search_finds_what_it_is_to_find() -> None:
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
            # ours, in utils/atomic_io.py and utils/text.py; datatrove's own files
            if not line.startswith(("write_text(", "read_text(")) and "logging_dir" not in line:
                found.append(f"{file.relative_to(package)}:{node.lineno} {line}")
    assert found == []
