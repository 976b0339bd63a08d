"""The result of one check of `gnano doctor`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "problem", "unknown"]


@dataclass(frozen=True)
class Check:
    """What a check has found.

    A note is what costs speed or may fail later. With a problem something does not work, or
    computes wrong numbers. Unknown is what could not be checked.
    """

    name: str
    status: Status
    found: str
    advice: str = ""  # what to do, as a sentence

    @classmethod
    def ok_unless(
        cls, fault: object, name: str, found: str, advice: str, status: Status = "note"
    ) -> "Check":
        """Return a check that is ok, or has this status and the advice where there is a fault."""
        return cls(name, status, found, advice) if fault else cls(name, "ok", found)

    @classmethod
    def within(cls, limit: float, difference: float, name: str, found: str, advice: str) -> "Check":
        """Return the check that a difference, which may be NaN, is at most its limit."""
        text = f"{found} {difference:.2g} (tolerance {limit:g})"
        return cls.ok_unless(not difference <= limit, name, text, advice, "problem")

    def __str__(self) -> str:
        """Return one line."""
        return f"{self.status:<8} {self.name:<32} {self.found}{self.advice and f'. {self.advice}'}"


Part = tuple[str, Callable[[], Iterable[Check]]]  # checks that are made together, and their name
