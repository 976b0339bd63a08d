"""Grades of the smoke test's checks for human texts, which should pass, and random ones.

    python benchmarks/judging.py --prose wiki.parquet books.parquet --code python.parquet \\
        --answers dolly.jsonl

Pieces as long as the texts of `gnano smoke` (120 tokens of GPT-2) are graded by the same checks
without the prompts' topics, and so are continuations of the prompts by random tokens.
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
from gnano.data.sft.conversations import parse_conversation
from gnano.data.sft.record_loading import read_record_files
from gnano.evals.smoke_test import PROMPTS
from gnano.evals.text_checks import Expectation, grade_text
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

TOKENS, COUNT = 120, 400  # per text, texts
LIST_REQUEST_PATTERN = re.compile(r"(?i)(list|name|give me|what are some)\b")
Case = tuple[str, Expectation, bool]  # text, expectation, finished


@cache
def get_tokenizer() -> Tokenizer:
    return load_gpt2_tokenizer()


def truncate(text: str) -> str:
    tokenizer = get_tokenizer()
    return tokenizer.decode(tokenizer.encode(text)[:TOKENS])


def prose_cases(path: Path, rng: random.Random) -> Iterator[Case]:
    """Yield pieces from the middle of documents, beginning at a space."""
    texts = list(read_texts(path, "text"))
    for _ in range(COUNT):
        text = rng.choice(texts)
        start = rng.randrange(max(1, len(text) - 700))
        piece = text[start : start + 900]
        yield truncate(piece[max(piece.find(" "), 0) :]), Expectation(), False


def function_cases(path: Path, rng: random.Random) -> Iterator[Case]:
    """Yield the body of the first function with a docstring in each file."""
    texts = list(read_texts(path, "content"))
    for text in rng.sample(texts, min(COUNT, len(texts))):
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
                yield truncate(after), Expectation(kind="code", code_before=before), False
                break


def list_cases(path: Path) -> Iterator[Case]:
    """Yield the full answers to requests for a list."""
    records = read_record_files([str(path)], parse_conversation).records
    requests = [one.turns for one in records if LIST_REQUEST_PATTERN.match(one.turns[0].content)]
    for turns in requests[:COUNT]:
        yield turns[-1].content, Expectation(kind="list", is_answer=True), True


def noise_cases(rng: random.Random) -> Iterator[Case]:
    """Yield random tokens as continuations of the prompts."""
    tokenizer = get_tokenizer()
    for _ in range(40):
        for prompt in PROMPTS:
            ids = [rng.randrange(tokenizer.vocab_size - 1) for _ in range(TOKENS)]
            yield (
                tokenizer.decode(ids),
                Expectation(kind=prompt.kind, code_before=prompt.text),
                False,
            )


def print_grades(name: str, cases: Iterable[Case]) -> None:
    counts = Counter(grade_text(*case).grade for case in cases)
    print(
        f"{name:<24}" + "  ".join(f"{counts[grade]:4} {grade}" for grade in ("OK", "WEAK", "FAIL"))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prose", type=Path, nargs="*", default=[])
    parser.add_argument("--code", type=Path, nargs="*", default=[])
    parser.add_argument("--answers", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    rng = random.Random(1)
    for path in args.prose:
        print_grades(path.parent.name, prose_cases(path, rng))
    for path in args.code:
        print_grades(f"functions, {path.parent.name}", function_cases(path, rng))
    for path in args.answers:
        print_grades("answers with lists", list_cases(path))
    print_grades("random tokens", noise_cases(rng))


if __name__ == "__main__":
    main()
