"""The data room: documents -> token shards -> the order -> batches."""

from typing import TYPE_CHECKING

from gnano.data.sources import DataConfig, Source
from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.data.batches import Batches, Corpus, HeldoutRow, heldout_batches
    from gnano.data.documents import Document, find_files, read_documents
    from gnano.data.manifest import Manifest
    from gnano.data.order import Order, samples_of
    from gnano.data.preparation import prepare

__all__ = [
    "Batches",
    "Corpus",
    "DataConfig",
    "Document",
    "HeldoutRow",
    "Manifest",
    "Order",
    "Source",
    "find_files",
    "heldout_batches",
    "prepare",
    "read_documents",
    "samples_of",
]

__getattr__ = lazily(
    __name__,
    {
        "Batches": "batches",
        "Corpus": "batches",
        "Document": "documents",
        "HeldoutRow": "batches",
        "Manifest": "manifest",
        "Order": "order",
        "find_files": "documents",
        "heldout_batches": "batches",
        "prepare": "preparation",
        "read_documents": "documents",
        "samples_of": "order",
    },
)
