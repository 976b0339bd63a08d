"""The data room: documents -> token shards -> the order -> batches."""

from typing import TYPE_CHECKING

from gnano.data.instructions.config import InstructionConfig, InstructionSource
from gnano.data.sources import DataConfig, Source
from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.data.any_batch import AnyBatch
    from gnano.data.bad_records import BadRecords, RecordError
    from gnano.data.batches import Batch, Batches, heldout_batches
    from gnano.data.corpus import Corpus, HeldoutRow, row_starts
    from gnano.data.documents import Document, check_column, read_documents, read_texts
    from gnano.data.file_search import find_files
    from gnano.data.looking import Piece, Sample, look
    from gnano.data.manifest import Manifest
    from gnano.data.ngrams import NGrams
    from gnano.data.order import Order, samples_of
    from gnano.data.preparing.preparation import prepare
    from gnano.data.preparing.status import Status
    from gnano.data.verifying import verify_data
    from gnano.data.windows import Hashes, Stretches, Windows

__all__ = [
    "AnyBatch",
    "BadRecords",
    "Batch",
    "Batches",
    "Corpus",
    "DataConfig",
    "Document",
    "Hashes",
    "HeldoutRow",
    "InstructionConfig",
    "InstructionSource",
    "Manifest",
    "NGrams",
    "Order",
    "Piece",
    "RecordError",
    "Sample",
    "Source",
    "Status",
    "Stretches",
    "Windows",
    "check_column",
    "find_files",
    "heldout_batches",
    "look",
    "prepare",
    "read_documents",
    "read_texts",
    "row_starts",
    "samples_of",
    "verify_data",
]

__getattr__ = lazily(
    __name__,
    {
        "AnyBatch": "any_batch",
        "RecordError": "bad_records",
        "BadRecords": "bad_records",
        "Batch": "batches",
        "Batches": "batches",
        "Corpus": "corpus",
        "Document": "documents",
        "Hashes": "windows",
        "HeldoutRow": "corpus",
        "Manifest": "manifest",
        "NGrams": "ngrams",
        "Order": "order",
        "Piece": "looking",
        "Sample": "looking",
        "Status": "preparing.status",
        "Stretches": "windows",
        "Windows": "windows",
        "check_column": "documents",
        "find_files": "file_search",
        "heldout_batches": "batches",
        "look": "looking",
        "prepare": "preparing.preparation",
        "read_documents": "documents",
        "read_texts": "documents",
        "row_starts": "corpus",
        "samples_of": "order",
        "verify_data": "verifying",
    },
)
