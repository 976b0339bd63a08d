"""A real terminal, and a `gnano` in it: keys in, what a person would see out."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>]")
ENTER, ALT_ENTER, CTRL_C, CTRL_D, UP = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A"
PATIENCE = 60.0  # seconds
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split()))
from gnano.cli import main
main(sys.argv[2:])
"""


class Terminal:
    """The process has it as its controlling terminal: Ctrl-C is a signal where it is one."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        hidden = environment.pop("without", "")  # packages that are not to be found
        self.process = subprocess.Popen(
            [sys.executable, "-c", WITHOUT, hidden, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={
                **os.environ,
                "TERM": "xterm-256color",
                "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody here answers where the cursor is
                **environment,
            },
        )
        os.close(theirs)
        self.raw = b""
        self.seen = 0  # characters of the screen that a wait has already passed

    @property
    def screen(self) -> str:
        return ESCAPES.sub("", self.raw.decode("utf-8", "replace"))

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def wait_for(self, text: str) -> str:
        """Return, with what came before it, as soon as this is on the screen, again."""
        deadline = time.monotonic() + PATIENCE
        while (at := self.screen.find(text, self.seen)) < 0:
            assert self._read(deadline), f"{text!r} did not come, but {self.screen[self.seen :]!r}"
        before = self.screen[self.seen : at]
        self.seen = at + len(text)
        return before

    def ready(self) -> str:
        """Return, with what came before it, as soon as it asks for a line, and waits for one.

        In the moment between the two, Python's readline would lose a signal.
        """
        before = self.wait_for("\n>")
        status = Path(f"/proc/{self.process.pid}/stat")
        deadline = time.monotonic() + PATIENCE
        while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return before

    def end(self) -> int:
        """The exit code, as soon as it has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(timeout=60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)

    def _read(self, deadline: float) -> bool:
        """Is there more?"""
        ready, _, _ = select.select([self.ours], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return False
        try:
            data = os.read(self.ours, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw += data
        return bool(data)
