"""How many bits does a byte of text cost? Held-out documents of a data folder, or any text.

All tokens' cost in bits over the UTF-8 bytes that they stand for: models with different
tokenizers compare, and so does any compressor. The documents stand one after another, as in
training, and are cut to the model's context; for a model with a tokenizer of its own they are
decoded and encoded anew.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gnano.data import Corpus, read_texts, row_starts
from gnano.evals.likelihood import Option, Question, log_likelihoods
from gnano.evals.subject import Subject


@dataclass(frozen=True)
class Bits:
    source: str
    bits_per_byte: float
    bytes: int
    tokens: int


def held_out(
    subject: Subject,
    corpus: Corpus,
    tokens: int = 0,
    rows: int = 8,
    show: Callable[[str], None] = lambda _: None,
) -> list[Bits]:
    """Of each source's held-out documents, of at most so many of the folder's tokens (0: all)."""
    found = []
    for number, name in enumerate(corpus.names):
        ids = corpus.heldout(number)[: tokens or None].tolist()
        if len(ids) < 2:
            continue
        if subject.tokenizer and subject.tokenizer.fingerprint == corpus.tokenizer.fingerprint:
            size = int(corpus.tokenizer.token_bytes[ids].sum())
        else:
            documents = _documents(ids, corpus.tokenizer.end_of_text)
            texts = [corpus.tokenizer.decode_bytes(part) for part in documents]
            size = sum(map(len, texts))
            ids = _stream(subject, (text.decode("utf-8", "replace") for text in texts))
        found.append(_bits(subject, name, ids, size, rows, show))
    return found


def of_file(
    subject: Subject, path: Path, rows: int = 8, show: Callable[[str], None] = lambda _: None
) -> Bits:
    """Of the documents of a text file, or the `text` of a JSONL, CSV or Parquet file."""
    texts = list(read_texts(path, "text"))
    if not texts:
        raise ValueError(f"{path} holds no text.")
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return _bits(subject, path.name, _stream(subject, texts), size, rows, show)


def _documents(ids: Sequence[int], end: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == end:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _stream(subject: Subject, texts: Iterable[str]) -> list[int]:
    ids: list[int] = []
    for text in texts:
        ids += [*subject.wording.otherwise, *subject.wording.encode(text)]
    return ids


def _bits(
    subject: Subject,
    name: str,
    ids: Sequence[int],
    size: int,
    rows: int,
    show: Callable[[str], None],
) -> Bits:
    length = subject.reader.context
    questions = []
    seen = 0
    for start in row_starts(len(ids), length):
        part = tuple(ids[start : start + length + 1])
        last = start + len(part) - 1
        questions.append(Question((Option(part, last - seen),)))
        seen = last
    found = log_likelihoods(
        subject.reader,
        questions,
        rows,
        lambda done: show(f"{name}: {done:,} of {len(questions):,} rows"),
    )
    nats = -sum(options[0][0] for options in found)
    return Bits(name, nats / math.log(2) / size, size, len(ids))
