"""Faults of the local Hub: what can happen to a request.

    hub.faults["python/train-"] = [status(503), cut(1000)]

A fault applies to requests whose path contains its key; each such request takes the first one off
the list, so two faults hit the first two requests. `status` hits every request, the other kinds
only those that send content.
"""

from dataclasses import dataclass

LFS = (".parquet", ".jsonl", ".gz", ".zst")  # suffixes of files in LFS


@dataclass(frozen=True)
class Fault:
    """What happens to one request."""

    status: int = 0  # answer with this instead
    headers: tuple[tuple[str, str], ...] = ()  # with these, such as ("Retry-After", "1")
    cut: int = -1  # bytes of a file after which the connection breaks
    stall: float = 0.0  # seconds of silence after `cut` bytes (0 bytes if that is not given)
    content: bytes | None = None  # send this instead of the file
    ignore_range: bool = False  # send the complete file, with 200

    def hits(self, method: str, path: str) -> bool:
        redirected = "/resolve/" in path and path.endswith(LFS)
        return self.status > 0 or (method == "GET" and not redirected)


def status(code: int, **headers: str) -> Fault:
    return Fault(status=code, headers=tuple((k.replace("_", "-"), v) for k, v in headers.items()))


def cut(after: int) -> Fault:
    return Fault(cut=after)


def stall(seconds: float, after: int = 0) -> Fault:
    return Fault(stall=seconds, cut=after)


def wrong(content: bytes) -> Fault:
    return Fault(content=content)
