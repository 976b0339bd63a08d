"""A log of JSON lines that is only ever appended to, and that a full disk does not stop.

A line that cannot be written is kept and tried again with the next one, so the log has a gap
only if the process ends before there is room. What a kill tore, in the middle of a line, is left
as a line of its own, which readers skip.
"""

import os
from pathlib import Path
from typing import Any

from gnano.utils.json_text import dump_json


class JsonLinesWriter:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: int | None = None
        self.pending = b""
        self.last_error: OSError | None = None  # why the last line is still unwritten
        self.flush()

    def write(self, **values: Any) -> bool:
        """Append a line; False where it has to wait, for the reason `lacking`."""
        self.pending += dump_json(values).encode() + b"\n"
        return self.flush()

    def flush(self) -> bool:
        try:
            if self.file is None:
                self.file = self._open()
            while self.pending:
                self.pending = self.pending[os.write(self.file, self.pending) :]
            self.last_error = None
        except OSError as error:
            self.last_error = OSError(error.errno, error.strerror, str(self.path))
        return not self.pending

    def close(self) -> int:
        """How many lines could not be written to the end."""
        self.flush()
        if self.file is not None:
            os.close(self.file)
        return self.pending.count(b"\n")

    def _open(self) -> int:
        # unbuffered: a line that fails must not come again, half of it, with a later one
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        end = os.lseek(file, 0, os.SEEK_END)
        if end > 0 and os.pread(file, 1, end - 1) != b"\n":
            self.pending = b"\n" + self.pending
        return file
