"""Bits per byte of text: of the held-out documents of a data folder, or of any file.

All tokens' cost in bits over the UTF-8 bytes that they stand for: models with different tokenizers
compare, and so does any compressor. The documents follow one another, as in training, and are cut
to the model's context; for a model with a tokenizer of its own they are decoded and encoded anew.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from gnano.data.corpus import Corpus, row_starts
from gnano.data.documents import read_texts
from gnano.evals.likelihood import Option, Question, log_likelihoods
from gnano.evals.subject import Subject

Show = Callable[[str], None]


@dataclass(frozen=True)
class Bits:
    source: str
    bits_per_byte: float
    bytes: int
    tokens: int


def mean_bits(parts: Sequence[Bits]) -> float:
    """Return the bits per byte over the bytes of all parts."""
    return sum(p.bits_per_byte * p.bytes for p in parts) / sum(p.bytes for p in parts)


def held_out(
    subject: Subject, corpus: Corpus, tokens: int = 0, rows: int = 8, show: Show = lambda _: None
) -> list[Bits]:
    """Measure each source's held-out documents, at most so many of the folder's tokens (0: all)."""
    found = []
    for number, name in enumerate(corpus.names):
        ids = corpus.heldout(number)[: tokens or None].tolist()
        if len(ids) < 2:
            continue
        if subject.tokenizer and subject.tokenizer.fingerprint == corpus.tokenizer.fingerprint:
            size = int(corpus.tokenizer.token_bytes[ids].sum())
        else:
            end = corpus.tokenizer.end_of_text
            documents = [list(part) for ends, part in groupby(ids, end.__eq__) if not ends]
            texts = [corpus.tokenizer.decode_bytes(part) for part in documents]
            size = sum(map(len, texts))
            ids = _encode_documents(subject, (text.decode("utf-8", "replace") for text in texts))
        found.append(_measure(subject, name, ids, size, rows, show))
    return found


def of_file(subject: Subject, path: Path, rows: int = 8, show: Show = lambda _: None) -> Bits:
    """Measure a text file, or the `text` of a JSONL, CSV or Parquet file."""
    texts = list(read_texts(path, "text"))
    if not texts:
        raise ValueError(f"{path} holds no text.")
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return _measure(subject, path.name, _encode_documents(subject, texts), size, rows, show)


def _encode_documents(subject: Subject, texts: Iterable[str]) -> list[int]:
    ids: list[int] = []
    for text in texts:
        ids += [*subject.wording.otherwise, *subject.wording.encode(text)]
    return ids


def _measure(
    subject: Subject, name: str, ids: Sequence[int], size: int, rows: int, show: Show
) -> Bits:
    length = subject.reader.context
    questions = []
    scored = 0  # tokens before the row that are scored already
    for start in row_starts(len(ids), length):
        part = tuple(ids[start : start + length + 1])
        last = start + len(part) - 1
        questions.append(Question((Option(part, last - scored),)))
        scored = last
    found = log_likelihoods(
        subject.reader,
        questions,
        rows,
        lambda done: show(f"{name}: {done:,} of {len(questions):,} rows"),
    )
    nats = -sum(options[0][0] for options in found)
    return Bits(name, nats / math.log(2) / size, size, len(ids))
