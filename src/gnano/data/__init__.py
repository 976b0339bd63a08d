"""The data room: documents -> token shards -> the order -> batches."""

from typing import TYPE_CHECKING

from gnano.data.instructions.config import InstructionConfig, InstructionSource
from gnano.data.sources import DataConfig, Source
from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.data.any_batch import AnyBatch
    from gnano.data.batches import Batch, Batches, heldout_batches
    from gnano.data.corpus import Corpus, HeldoutRow, row_starts
    from gnano.data.documents import Document, find_files, read_documents
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
    "Sample",
    "Source",
    "Status",
    "Stretches",
    "Windows",
    "find_files",
    "heldout_batches",
    "look",
    "prepare",
    "read_documents",
    "row_starts",
    "samples_of",
    "verify_data",
]

__getattr__ = lazily(
    __name__,
    {
        "AnyBatch": "any_batch",
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
        "find_files": "documents",
        "heldout_batches": "batches",
        "look": "looking",
        "prepare": "preparing.preparation",
        "read_documents": "documents",
        "row_starts": "corpus",
        "samples_of": "order",
        "verify_data": "verifying",
    },
)
