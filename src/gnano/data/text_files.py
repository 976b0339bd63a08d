"""Zstandard, unpacked as a stream that notices where a file was cut short.

Lines of text files, unpacked where they are packed, with their exact numbers.

Lines end in LF, CRLF or CR, and have LF here; nothing else ends one. A byte order mark before a
line is no part of it (where files were joined, one may stand inside). Bytes that are not UTF-8
stand in the lines as lone surrogates, which `undecodable` finds, so one of them costs one record.

The checksum of an archive stands at its end. So packed files are read twice, unless a glance is
enough: of one that cannot be read to the end, nothing is used.
"""

import codecs
import gzip
import importlib
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gnano.data.record_errors import RecordError
from gnano.utils.text import utf8_error


class ZstdReader(io.RawIOBase):
    """Unpacks frame after frame; EOFError where the last one is cut short, which zstandard's
    own reader takes for the end."""

    def __init__(self, file: IO[bytes], zstandard: Any) -> None:
        self.file, self.zstandard = file, zstandard
        self.frame: Any = None
        self.decompressed = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.decompressed:
            packed = self.frame.unused_data if self.frame and self.frame.eof else b""
            packed = packed or self.file.read(2**17)
            if not packed:
                if self.frame and not self.frame.eof:
                    raise EOFError("Compressed file ended in the midst of a frame")
                return 0
            if not self.frame or self.frame.eof:
                self.frame = self.zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
            try:
                self.decompressed = self.frame.decompress(packed)
            except self.zstandard.ZstdError as error:
                raise EOFError(str(error)) from None
        count = min(len(buffer), len(self.decompressed))
        buffer[:count], self.decompressed = self.decompressed[:count], self.decompressed[count:]
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


BINARY_CHECK_BYTES = 2**13  # bytes by which a binary file is known
CONTROL_BYTES = bytes({*range(32)} - {7, 8, 9, 10, 11, 12, 13, 26, 27})  # not found in text
COMPRESSION_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
NON_UTF8_PATTERN = re.compile("[\udc80-\udcff]")


def read_lines(path: Path, verify: bool = True) -> Iterator[tuple[int, str]]:
    """The lines of a text file, unpacked if need be, and their numbers.

    Raises RecordError for a damaged archive: before its first line, or, without `check`, where the
    damage is.
    """
    if verify and compression_suffix(path):
        for _ in _iter_lines(path):
            pass
    yield from _iter_lines(path)


def find_undecodable(path: Path, line: int, text: str) -> RecordError | None:
    """The first byte that is not UTF-8 in text that begins in this line, as a bad record."""
    if text.isascii() or not (found := NON_UTF8_PATTERN.search(text)):
        return None
    reason = f"its byte 0x{ord(found[0]) - 0xDC00:02X} is not UTF-8; save the file as UTF-8"
    return RecordError(path, line + text.count("\n", 0, found.start()), reason)


def is_binary(path: Path) -> bool:
    """Is this no text? More than one in fifty of its first bytes are control characters.

    Raises ValueError for UTF-16.
    """
    if path.name.lower().endswith(".parquet"):
        return False
    try:
        with _open_decompressed(path) as file:
            head = file.read(BINARY_CHECK_BYTES)
    except (OSError, EOFError, zlib.error):
        return False  # for the reader to say what is wrong
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise utf8_error(str(path), head, 1)
    if head.startswith(b"PAR1"):
        return False
    return 50 * (len(head) - len(head.translate(None, CONTROL_BYTES))) > len(head)


def check_text(path: Path) -> None:
    """Raises ValueError for a file that is named to be read, and is binary or in UTF-16."""
    if is_binary(path):
        raise ValueError(
            f"{path} is no text but a binary file: name files of text, JSON lines, CSV or Parquet."
        )


def compression_suffix(path: Path) -> str:
    """ ".gz", ".zst" or "": by the file's name, or else by its first bytes."""
    ending = path.suffix.lower()
    if ending in COMPRESSION_MAGIC.values():
        return ending
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for magic, name in COMPRESSION_MAGIC.items() if head.startswith(magic)), "")


def require_module(module: str, path: Path) -> Any:
    """An optional package; raises ValueError, with the command that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"Reading {path} needs {module.split('.')[0]}: pip install 'auto-g-nano[data]'."
        ) from None


def _iter_lines(path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with io.TextIOWrapper(_open_decompressed(path), "utf-8-sig", "surrogateescape") as file:
            for number, line in enumerate(file, 1):
                yield number, line.removeprefix("\ufeff")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        why = str(error).rstrip(".")
        reason = f"it is damaged after line {number:,} ({why}), so nothing of it is used"
        raise RecordError(path, 0, reason, number + 1) from None


def _open_decompressed(path: Path) -> IO[bytes]:
    kind = compression_suffix(path)
    if kind and not path.stat().st_size:
        raise EOFError("it is empty")
    if kind == ".gz":
        return io.BufferedReader(gzip.GzipFile(path))
    if kind == ".zst":
        zstandard = require_module("zstandard", path)
        return io.BufferedReader(ZstdReader(path.open("rb"), zstandard), 2**17)
    return path.open("rb")
