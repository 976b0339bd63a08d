"""What was one answer like? Its pieces as they come, then how long it was and how it ended."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

Ending = Literal["by itself", "stopped", "cut at its limit", "cut, the context is full"]


class Trim:
    """Text without white space around it, in pieces: joined, they are its `strip()`."""

    def __init__(self) -> None:
        self.said = ""
        self.held = ""  # white space that is the text's, if anything follows

    def push(self, text: str) -> str:
        self.held = self.held + text if self.said else text.lstrip()
        piece = self.held.rstrip()
        self.held = self.held[len(piece) :]
        self.said += piece
        return piece


@dataclass
class Speech:
    prompt: int  # tokens before the answer
    fell: int = 0  # exchanges that fell out of the context to make room for it
    answer: str = ""
    tokens: int = 0  # of the answer
    ending: Ending = "stopped"  # until it ends otherwise
    began: float = field(default_factory=perf_counter)
    first: float = 0.0  # seconds until its first token
    seconds: float = 0.0  # from there to its last

    def count(self) -> None:
        """One more token has come."""
        now = perf_counter() - self.began
        if self.tokens == 0:
            self.first = now
        self.tokens += 1
        self.seconds = now - self.first

    def forgotten(self, context: int) -> str:
        """What is to be said before it; "" for nothing."""
        if not self.fell:
            return ""
        if self.fell == 1:
            what = "The oldest question falls, with its answer,"
        else:
            what = f"The {self.fell:,} oldest questions fall, with their answers,"
        return f"{what} out of the context of {context:,} tokens: the model forgets this."

    def __str__(self) -> str:
        parts = [f"{self.tokens:,} token{'s' if self.tokens != 1 else ''}"]
        if self.tokens > 1 and self.seconds:
            parts.append(f"{(self.tokens - 1) / self.seconds:,.1f} tokens/s")
        if self.tokens:
            parts.append(f"first after {self.first:.2f} s")
        if self.ending != "by itself":
            parts.append(self.ending)
        return " · ".join(parts)
