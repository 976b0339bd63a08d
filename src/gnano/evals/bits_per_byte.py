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

from gnano.data.readers import read_texts
from gnano.data.tokenized_corpus import TokenizedCorpus, heldout_row_starts
from gnano.evals.loglikelihood import EncodedChoice, EncodedItem, compute_loglikelihoods
from gnano.evals.model_adapter import EvalModel

Report = Callable[[str], None]


@dataclass(frozen=True)
class BitsPerByte:
    source: str
    bits_per_byte: float
    bytes: int
    tokens: int


def mean_bits_per_byte(parts: Sequence[BitsPerByte]) -> float:
    """Return the bits per byte over the bytes of all parts."""
    return sum(p.bits_per_byte * p.bytes for p in parts) / sum(p.bytes for p in parts)


def measure_heldout(
    model: EvalModel,
    corpus: TokenizedCorpus,
    max_tokens: int = 0,
    batch_size: int = 8,
    on_progress: Report = lambda _: None,
) -> list[BitsPerByte]:
    """Measure each source's held-out documents, at most so many of the folder's tokens (0: all)."""
    found = []
    for number, name in enumerate(corpus.source_names):
        ids = corpus.heldout_tokens(number)[: max_tokens or None].tolist()
        if len(ids) < 2:
            continue
        if model.tokenizer and model.tokenizer.fingerprint == corpus.tokenizer.fingerprint:
            size = int(corpus.tokenizer.token_bytes[ids].sum())
        else:
            end = corpus.tokenizer.end_of_text_id
            documents = [list(part) for ends, part in groupby(ids, end.__eq__) if not ends]
            texts = [corpus.tokenizer.decode_bytes(part) for part in documents]
            size = sum(map(len, texts))
            ids = _encode_documents(model, (text.decode("utf-8", "replace") for text in texts))
        found.append(_measure_ids(model, name, ids, size, batch_size, on_progress))
    return found


def measure_file(
    model: EvalModel, path: Path, batch_size: int = 8, on_progress: Report = lambda _: None
) -> BitsPerByte:
    """Measure a text file, or the `text` of a JSONL, CSV or Parquet file."""
    texts = list(read_texts(path, "text"))
    if not texts:
        raise ValueError(f"{path} holds no text.")
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return _measure_ids(
        model, path.name, _encode_documents(model, texts), size, batch_size, on_progress
    )


def _encode_documents(model: EvalModel, texts: Iterable[str]) -> list[int]:
    ids: list[int] = []
    for text in texts:
        ids += [*model.encoder.document_bos, *model.encoder.encode(text)]
    return ids


def _measure_ids(
    model: EvalModel,
    name: str,
    ids: Sequence[int],
    num_bytes: int,
    batch_size: int,
    on_progress: Report,
) -> BitsPerByte:
    length = model.scorer.block_size
    questions = []
    scored = 0  # tokens before the row that are scored already
    for start in heldout_row_starts(len(ids), length):
        part = tuple(ids[start : start + length + 1])
        last = start + len(part) - 1
        questions.append(EncodedItem((EncodedChoice(part, last - scored),)))
        scored = last
    found = compute_loglikelihoods(
        model.scorer,
        questions,
        batch_size,
        lambda done: on_progress(f"{name}: {done:,} of {len(questions):,} rows"),
    )
    nats = -sum(options[0][0] for options in found)
    return BitsPerByte(name, nats / math.log(2) / num_bytes, num_bytes, len(ids))
