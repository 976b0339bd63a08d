"""What happened, step by step: `metrics.jsonl`, one JSON object a line, only ever appended.

After a kill the steps since the last checkpoint are done again and logged again, with the
same figures; a reader takes the later line of a step and skips a torn one.
"""

import json
import os
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"


class MetricsLog:
    def __init__(self, run: Path) -> None:
        path = run / NAME
        self.file = path.open("a+b")
        if self.file.tell():
            self.file.seek(-1, os.SEEK_END)
            if self.file.read() != b"\n":  # a kill came in the middle of a line
                self.file.write(b"\n")

    def write(self, **values: Any) -> None:
        self.file.write(json.dumps(values).encode() + b"\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
