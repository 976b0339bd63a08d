"""The held-out split: a document's content decides, so that no run can train on it.

The decision is a hash of the document's group (by default its text) against the share: the
same for every budget, order and machine, and equal texts never part.
"""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gnano.data.documents import Document
from gnano.data.manifest import Manifest


def text_position(text: str) -> int:
    """Hash a text to 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest()[:8], "big")


def is_heldout(document: Document, fraction: float, position: int | None = None) -> bool:
    """`known` spares the hash where the position of the document's text has been computed."""
    if document.split_group or position is None:
        position = text_position(document.split_group or document.text)
    return position < fraction * 2**64


def warn_empty_heldout(folder: Path, manifest: Manifest) -> list[str]:
    """A sentence for each complete source of which the split, against its share, holds nothing."""
    share = manifest.plan.heldout
    notes = []
    for name, source in manifest.sources.items():
        if share and source.complete and source.documents and not source.heldout_tokens:
            keys = [np.fromfile(file, "<u8") for file in sorted((folder / name).glob("*.keys"))]
            positions = np.concatenate(keys).tolist() if keys else []
            what = f"source {name!r} ({source.documents:,} documents)"
            notes.append(format_empty_heldout(what, share, positions))
    return notes


def format_empty_heldout(subject: str, fraction: float, positions: Iterable[int]) -> str:
    """Says that this share holds nothing out, and names one that does, by the texts' positions."""
    found = sorted(set(positions))
    note = f"Nothing of {subject} is held out at data.heldout_fraction {fraction:g}, so its loss on text that is "
    note += "not trained on cannot be measured"
    count = min(10, max(1, len(found) // 10))
    enough = (found[count - 1] + 1) / 2**64 if len(found) > 1 else 1.0
    digits = 1 - math.floor(math.log10(enough))  # two that count, rounded up
    enough = math.ceil(enough * 10**digits) / 10**digits
    if enough >= 1:
        return f"{note}: it needs more texts."
    return f"{note}: data.heldout_fraction {enough:g} holds out {count}."
