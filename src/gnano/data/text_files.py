"""Lines of text files with exact numbers, detection of binary files, and bad records.

Lines end in LF, CRLF or CR, which become LF; nothing else ends a line. A byte order mark before a
line is not part of it (where files were joined, one may be inside). Bytes that are not UTF-8 become
lone surrogates, which `find_undecodable` finds, so that one of them costs one record.

The checksum of an archive is at its end. Compressed files are therefore read twice, unless a
partial read is enough: of a file that cannot be read to its end, nothing is used.

Readers yield a `RecordError` in place of a record that cannot be used. `BadRecordCounter` leaves
these out, counts them, and raises if their share is larger than the recipe allows
(`data.max_bad_share`).
"""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from gnano.config.data_config import MAX_BAD_SHARE
from gnano.utils.files import utf8_error
from gnano.utils.platform_support import require

RecordT = TypeVar("RecordT")
MAX_SHOWN_RECORDS = 5  # bad records that are shown
BINARY_CHECK_BYTES = 2**13  # read to recognize a binary file
CONTROL_BYTES = bytes({*range(32)} - {7, 8, 9, 10, 11, 12, 13, 26, 27})  # not found in text
COMPRESSION_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
NON_UTF8_PATTERN = re.compile("[\udc80-\udcff]")


class RecordError(ValueError):
    """A record that cannot be used; `line` 0 stands for `record_count` records of a file."""

    def __init__(self, path: Path, line: int, reason: str, record_count: int = 1) -> None:
        self.path, self.line, self.record_count = path, line, record_count
        self.reason = reason.rstrip(".")
        unit = "row" if path.name.lower().endswith(".parquet") else "line"
        place = f"{path}, {unit} {line:,}" if line else path
        super().__init__(f"{place}: {self.reason}.")


@dataclass
class BadRecordCounter:
    """Counts records and bad records; if `strict`, the first bad one is raised."""

    strict: bool = False
    read_count: int = 0  # records, including bad ones
    bad_count: int = 0
    examples: list[RecordError] = field(default_factory=list)

    def filter(self, records: Iterable[RecordT | RecordError]) -> Iterator[RecordT]:
        """Yield the records that can be used."""
        for record in records:
            if not isinstance(record, RecordError):
                self.read_count += 1
                yield record
            elif self.strict:
                raise record
            else:
                self.read_count += record.record_count
                self.bad_count += record.record_count
                if len(self.examples) < MAX_SHOWN_RECORDS:
                    self.examples.append(record)

    def format_summary(self) -> str:
        """Return how many records are bad, and the first of them, one a line; "" without any."""
        if not self.bad_count:
            return ""
        lines = "".join(f"\n  {str(record)[:-1]}" for record in self.examples)
        return f"{self.bad_count:,} of {self.read_count:,} records cannot be used:{lines}"

    def check(self, max_share: float = MAX_BAD_SHARE, prefix: str = "") -> None:
        """Raise ValueError if more than this share of the records is bad."""
        if self.bad_count / max(self.read_count, 1) > max_share:
            raise ValueError(
                f"{prefix}{self.format_summary()}\nAt most {max_share:.3g} of the records may be "
                f"left out (data.max_bad_share): correct the files, or allow more."
            )


def read_lines(path: Path, verify: bool = True) -> Iterator[tuple[int, str]]:
    """Yield the line numbers and lines of a text file, decompressed if necessary.

    Raises RecordError for a damaged archive: before its first line or, without `verify`, where the
    damage is.
    """
    has_checksum = verify and _compression_suffix(path)
    for is_check in (True, False) if has_checksum else (False,):
        number = 0
        try:
            with io.TextIOWrapper(_open_decompressed(path), "utf-8-sig", "surrogateescape") as file:
                for number, line in enumerate(file, 1):
                    if not is_check:
                        yield number, line.removeprefix("\ufeff")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            cause = str(error).rstrip(".")
            reason = f"it is damaged after line {number:,} ({cause}), so nothing of it is used"
            raise RecordError(path, 0, reason, number + 1) from None


def find_undecodable(path: Path, line: int, text: str) -> RecordError | None:
    """Return the error for the first byte that is not UTF-8 in text that starts in this line."""
    if text.isascii() or not (found := NON_UTF8_PATTERN.search(text)):
        return None
    reason = f"its byte 0x{ord(found[0]) - 0xDC00:02X} is not UTF-8; save the file as UTF-8"
    return RecordError(path, line + text.count("\n", 0, found.start()), reason)


def is_binary(path: Path) -> bool:
    """Return whether more than one in fifty of a file's first bytes are control characters.

    Parquet files are not binary here. Raises ValueError for UTF-16.
    """
    if path.name.lower().endswith(".parquet"):
        return False
    try:
        with _open_decompressed(path) as file:
            head = file.read(BINARY_CHECK_BYTES)
    except (OSError, EOFError, zlib.error):
        return False  # the reader will raise the error
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise utf8_error(str(path), head, 1)
    if head.startswith(b"PAR1"):
        return False
    return 50 * (len(head) - len(head.translate(None, CONTROL_BYTES))) > len(head)


def check_text(path: Path) -> None:
    """Raise ValueError if a file is binary or UTF-16."""
    if is_binary(path):
        raise ValueError(
            f"{path} is a binary file, not text: name files of text, JSON lines, CSV or Parquet."
        )


def _compression_suffix(path: Path) -> str:
    """Return ".gz", ".zst" or "", by a file's name or else by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in COMPRESSION_MAGIC.values():
        return suffix
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for magic, name in COMPRESSION_MAGIC.items() if head.startswith(magic)), "")


def _open_decompressed(path: Path) -> IO[bytes]:
    suffix = _compression_suffix(path)
    if suffix and not path.stat().st_size:
        raise EOFError("it is empty")
    if suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(path))
    if suffix == ".zst":
        require("zstandard", "data", f"Reading {path} needs zstandard")
        return io.BufferedReader(_ZstdReader(path), 2**17)
    return path.open("rb")


class _ZstdReader(io.RawIOBase):
    """Decompresses frame after frame; EOFError if the last one is truncated.

    zstandard's own reader takes a truncated frame for the end of the file.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("rb")
        self.frame: Any = None
        self.decompressed = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from zstandard import ZstdDecompressor, ZstdError

        while not self.decompressed:
            compressed = self.frame.unused_data if self.frame and self.frame.eof else b""
            compressed = compressed or self.file.read(2**17)
            if not compressed:
                if self.frame and not self.frame.eof:
                    raise EOFError("Compressed file ended in the middle of a frame")
                return 0
            if not self.frame or self.frame.eof:
                self.frame = ZstdDecompressor(max_window_size=2**31).decompressobj()
            try:
                self.decompressed = self.frame.decompress(compressed)
            except ZstdError as error:
                raise EOFError(str(error)) from None
        count = min(len(buffer), len(self.decompressed))
        buffer[:count], self.decompressed = self.decompressed[:count], self.decompressed[count:]
        return count

    def close(self) -> None:
        self.file.close()
        super().close()
