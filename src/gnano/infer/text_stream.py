"""Bytes of tokens in, text out, as early as it is certain.

A token can end in the middle of a character and a stop string can span tokens, so text is
held back until no continuation can change it: never a broken character, never the first
half of a stop string.
"""

import codecs
from collections.abc import Sequence


class TextStream:
    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = (stop,) if isinstance(stop, str) else tuple(stop)
        if any(not isinstance(text, str) or not text for text in self.stop):
            raise ValueError("A stop string is empty, or no text; give at least one character.")
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held = ""
        self.stopped = False  # a stop string was met; nothing follows

    def push(self, data: bytes, final: bool = False) -> str:
        """Take a token's bytes; return the text that is now certain."""
        if self.stopped:
            return ""
        self.held += self.decoder.decode(data, final)
        # of stop strings inside one another, the one complete first, however the text is cut
        met = [(at + len(s), at) for s in self.stop if (at := self.held.find(s)) >= 0]
        if met:
            self.stopped = True
            certain, self.held = self.held[: min(met)[1]], ""
            return certain
        keep = 0 if final else self._possible_stop()
        certain = self.held[: len(self.held) - keep]
        self.held = self.held[len(self.held) - keep :]
        return certain

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max(map(len, self.stop), default=0) - 1
        for length in range(min(longest, len(self.held)), 0, -1):
            if any(text.startswith(self.held[-length:]) for text in self.stop):
                return length
        return 0
