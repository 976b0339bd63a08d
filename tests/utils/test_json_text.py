"""No file and no output of ours holds NaN or Infinity, which JSON has not."""

import ast
import json
import math
from pathlib import Path

import gnano
from gnano.utils.text import dump_json

SOURCE = Path(gnano.__file__).parent
# whose JSON has whole numbers and texts alone, or is hashed or read back by ourselves alone
OWN = {
    "utils/json_text.py",
    "model/adapter.py",  # in an error's sentence
    "train/alone.py",
    "train/changes.py",  # in an error's sentence
    "train/sharing.py",
    "train/saving/hashes.py",
    "train/ranks/lifeline.py",
    "train/ranks/stall.py",
    "data/instructions/files.py",
    "data/instructions/templates.py",
    "demo/python_corpus.py",
    "data/manifest.py",
    "data/preparing/pipeline.py",
    "data/preparing/tokenizing.py",
    "data/preparing/workers.py",
    "evals/evaluation.py",  # to compare settings
    "evals/saved.py",  # to compare settings
    "data/records.py",  # to mend half a surrogate pair
    "export/card.py",
    "export/formats.py",  # a path as Python spells it
    "export/using.py",  # likewise
    "tokenizer/bpe.py",
}


def test_numbers_that_are_not_finite_are_null_wherever_they_stand() -> None:
    value = {"a": [math.nan, (math.inf, 1.5)], "b": {"c": -math.inf}, "d": 1, "e": True}
    found = json.loads(dump_json(value))
    assert found == {"a": [None, [None, 1.5]], "b": {"c": None}, "d": 1, "e": True}
    assert dump_json({"ä": 1}, ensure_ascii=False, indent=1) == '{\n "ä": 1\n}'


def test_whoever_writes_figures_as_json_writes_them_so() -> None:
    users = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if ast.unparse(node) in ("json.dumps", "json.dump"):
                users.add(file.relative_to(SOURCE).as_posix())
    assert "utils/json_text.py" in users
    assert users <= OWN, "json_text writes figures; a file without any is listed here"
