"""A fake standard library."""

import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from gnano.demo.python_objects import PythonObject, iter_python_objects

Library = Callable[[dict[str, str]], dict[str, PythonObject]]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """library({"name.py": source}): return the objects found in a library of these files."""

    def find_objects(files: dict[str, str]) -> dict[str, PythonObject]:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
        return {each.qualified_name: each for each in iter_python_objects()}

    return find_objects
