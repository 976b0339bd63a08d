"""Bits per byte of text: the held-out documents of a data folder, or any file.

Bits per byte is the negative log-likelihood of all tokens in bits, divided by the number of UTF-8
bytes they encode, so models with different tokenizers (and compressors) can be compared. Documents
follow one another, as in training, and are split at the model's context length. A model with
another tokenizer gets the decoded documents, encoded by its own tokenizer.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from gnano.data.packed_dataset import TokenizedCorpus, heldout_row_starts
from gnano.data.readers import read_texts
from gnano.evals.loglikelihood import EncodedChoice, EncodedItem, compute_loglikelihoods
from gnano.evals.model_adapter import EvalModel

Report = Callable[[str], None]


@dataclass(frozen=True)
class BitsPerByte:
    """Bits per byte of one source or file."""

    source: str
    bits_per_byte: float
    bytes: int
    tokens: int


def mean_bits_per_byte(parts: Sequence[BitsPerByte]) -> float:
    """Return the mean over all parts, weighted by their bytes."""
    return sum(p.bits_per_byte * p.bytes for p in parts) / sum(p.bytes for p in parts)


def measure_heldout(
    model: EvalModel,
    corpus: TokenizedCorpus,
    max_tokens: int = 0,
    batch_size: int = 8,
    on_progress: Report = lambda _: None,
) -> list[BitsPerByte]:
    """Measure the first `max_tokens` tokens (0: all) of each source's held-out documents."""
    results = []
    for number, name in enumerate(corpus.source_names):
        ids = corpus.heldout_tokens(number)[: max_tokens or None].tolist()
        if len(ids) < 2:
            continue
        if model.tokenizer and model.tokenizer.fingerprint == corpus.tokenizer.fingerprint:
            num_bytes = int(corpus.tokenizer.token_bytes[ids].sum())
        else:
            end = corpus.tokenizer.end_of_text_id
            documents = [list(part) for is_end, part in groupby(ids, end.__eq__) if not is_end]
            texts = [corpus.tokenizer.decode_bytes(part) for part in documents]
            num_bytes = sum(map(len, texts))
            ids = _encode_documents(model, (text.decode("utf-8", "replace") for text in texts))
        results.append(_measure_ids(model, name, ids, num_bytes, batch_size, on_progress))
    return results


def measure_file(
    model: EvalModel, path: Path, batch_size: int = 8, on_progress: Report = lambda _: None
) -> BitsPerByte:
    """Measure a text file, or the `text` column of a JSONL, CSV or Parquet file."""
    texts = list(read_texts(path, "text"))
    if not texts:
        raise ValueError(f"{path} contains no text.")
    num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    ids = _encode_documents(model, texts)
    return _measure_ids(model, path.name, ids, num_bytes, batch_size, on_progress)


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
    rows = []
    num_scored = 0  # tokens scored by earlier rows
    for start in heldout_row_starts(len(ids), length):
        row = tuple(ids[start : start + length + 1])
        last = start + len(row) - 1
        rows.append(EncodedItem((EncodedChoice(row, last - num_scored),)))
        num_scored = last
    scores = compute_loglikelihoods(
        model.scorer,
        rows,
        batch_size,
        lambda done: on_progress(f"{name}: {done:,} of {len(rows):,} rows"),
    )
    nats = -sum(choices[0][0] for choices in scores)
    return BitsPerByte(name, nats / math.log(2) / num_bytes, num_bytes, len(ids))
