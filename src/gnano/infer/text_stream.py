"""Bytes of tokens in, text out, as early as it is certain.

A token can end in the middle of a character and a stop string can span tokens, so text is
held back until no continuation can change it: never a broken character, never the first
half of a stop string.
"""

import codecs
from collections.abc import Sequence


class IncrementalDetokenizer:
    def __init__(self, stop_strings: Sequence[str] = ()) -> None:
        self.stop_strings = (
            (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        )
        if any(not isinstance(text, str) or not text for text in self.stop_strings):
            raise ValueError("A stop string is empty, or no text; give at least one character.")
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pending_text = ""
        self.stopped = False  # a stop string was met; nothing follows

    def push(self, data: bytes, final: bool = False) -> str:
        """Take a token's bytes; return the text that is now certain."""
        if self.stopped:
            return ""
        self.pending_text += self.decoder.decode(data, final)
        # of stop strings inside one another, the one complete first, however the text is cut
        met = [
            (at + len(s), at) for s in self.stop_strings if (at := self.pending_text.find(s)) >= 0
        ]
        if met:
            self.stopped = True
            certain, self.pending_text = self.pending_text[: min(met)[1]], ""
            return certain
        keep = 0 if final else self._partial_stop_length()
        certain = self.pending_text[: len(self.pending_text) - keep]
        self.pending_text = self.pending_text[len(self.pending_text) - keep :]
        return certain

    def _partial_stop_length(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(map(len, self.stop_strings), default=0) - 1
        for length in range(min(longest, len(self.pending_text)), 0, -1):
            if any(text.startswith(self.pending_text[-length:]) for text in self.stop_strings):
                return length
        return 0
