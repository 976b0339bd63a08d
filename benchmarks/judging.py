"""Do texts that people wrote pass the smoke test's rules, and do random ones fail?

    python benchmarks/judging.py --prose wiki.parquet books.parquet --code python.parquet \\
        --answers dolly.jsonl

Pieces as long as those that a model writes for `gnano smoke` (120 tokens of GPT-2), judged by the
same rules without the prompts' topics; and continuations of the prompts by tokens drawn at random.
"""

import argparse
import ast
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from gnano.data.readers import read_texts
from gnano.data.sft.record_loading import read_conversation_files
from gnano.evals.smoke_test import PROMPTS
from gnano.evals.text_checks import Expectation, grade_text
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

TOKENS, COUNT = 120, 400
ASKS_FOR_A_LIST = re.compile(r"(?i)(list|name|give me|what are some)\b")
Case = tuple[str, Expectation, bool]  # text, what it should be, did it end by itself?


@cache
def words() -> Tokenizer:
    return load_gpt2_tokenizer()


def cut(text: str) -> str:
    tokenizer = words()
    return tokenizer.decode(tokenizer.encode(text)[:TOKENS])


def prose(path: Path, draw: random.Random) -> Iterator[Case]:
    """From the middle of documents, from a blank on."""
    texts = list(read_texts(path, "text"))
    for _ in range(COUNT):
        text = draw.choice(texts)
        start = draw.randrange(max(1, len(text) - 700))
        piece = text[start : start + 900]
        yield cut(piece[max(piece.find(" "), 0) :]), Expectation(), False


def functions(path: Path, draw: random.Random) -> Iterator[Case]:
    """The first one with a docstring in each file, after the docstring."""
    texts = list(read_texts(path, "content"))
    for text in draw.sample(texts, min(COUNT, len(texts))):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        lines = text.split("\n")
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) and node.body[1:]:
                end = node.body[0].end_lineno or node.lineno
                before = "\n".join(lines[node.lineno - 1 : end])
                after = "\n".join(["", *lines[end : end + 80]])
                yield cut(after), Expectation(kind="code", code_before=before), False
                break


def lists(path: Path) -> Iterator[Case]:
    """Whole answers to those who ask for a list."""
    records = read_conversation_files([str(path)]).records
    asked = [one.turns for one in records if ASKS_FOR_A_LIST.match(one.turns[0].content)]
    for turns in asked[:COUNT]:
        yield turns[-1].content, Expectation(kind="list", is_answer=True), True


def noise(draw: random.Random) -> Iterator[Case]:
    tokenizer = words()
    for _ in range(40):
        for prompt in PROMPTS:
            ids = [draw.randrange(tokenizer.vocab_size - 1) for _ in range(TOKENS)]
            yield (
                tokenizer.decode(ids),
                Expectation(kind=prompt.kind, code_before=prompt.text),
                False,
            )


def show(name: str, cases: Iterable[Case]) -> None:
    found = Counter(grade_text(*case).grade for case in cases)
    print(
        f"{name:<24}" + "  ".join(f"{found[grade]:4} {grade}" for grade in ("OK", "WEAK", "FAIL"))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prose", type=Path, nargs="*", default=[])
    parser.add_argument("--code", type=Path, nargs="*", default=[])
    parser.add_argument("--answers", type=Path, nargs="*", default=[])
    asked = parser.parse_args()
    draw = random.Random(1)
    for path in asked.prose:
        show(path.parent.name, prose(path, draw))
    for path in asked.code_lines:
        show(f"functions, {path.parent.name}", functions(path, draw))
    for path in asked.answers:
        show("answers with lists", lists(path))
    show("random tokens", noise(draw))


if __name__ == "__main__":
    main()
