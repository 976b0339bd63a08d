"""The data room: documents -> token shards -> the order -> batches."""

from typing import TYPE_CHECKING

from gnano.data.instructions.config import InstructionConfig, InstructionSource
from gnano.data.sources import DataConfig, Source
from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.data.any_batch import AnyBatch
    from gnano.data.batches import Batch, Batches, heldout_batches
    from gnano.data.corpus import Corpus, HeldoutRow
    from gnano.data.documents import Document, find_files, read_documents
    from gnano.data.looking import Piece, Sample, look
    from gnano.data.manifest import Manifest
    from gnano.data.ngrams import NGrams, Windows
    from gnano.data.order import Order, samples_of
    from gnano.data.preparing.preparation import prepare
    from gnano.data.preparing.status import Status
    from gnano.data.verifying import verify_data

__all__ = [
    "AnyBatch",
    "Batch",
    "Batches",
    "Corpus",
    "DataConfig",
    "Document",
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
    "Windows",
    "find_files",
    "heldout_batches",
    "look",
    "prepare",
    "read_documents",
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
        "HeldoutRow": "corpus",
        "Manifest": "manifest",
        "NGrams": "ngrams",
        "Order": "order",
        "Piece": "looking",
        "Sample": "looking",
        "Status": "preparing.status",
        "Windows": "ngrams",
        "find_files": "documents",
        "heldout_batches": "batches",
        "look": "looking",
        "prepare": "preparing.preparation",
        "read_documents": "documents",
        "samples_of": "order",
        "verify_data": "verifying",
    },
)
