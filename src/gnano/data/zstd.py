"""Zstandard, unpacked as a stream that notices where a file was cut short."""

import io
from typing import IO, Any


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
