"""Is this document held out? Decided by its content, so that no run can train on it.

The decision is a hash of the document's group (by default its text) against the share: the
same for every budget, order and machine, and equal texts never part.
"""

import hashlib

from gnano.data.documents import Document


def digest(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def position(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(digest(text)[:8], "big")


def is_heldout(document: Document, share: float, known: int | None = None) -> bool:
    """`known` spares the hash where the position of the document's text has been computed."""
    if document.group or known is None:
        known = position(document.group or document.text)
    return known < share * 2**64
