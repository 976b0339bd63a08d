"""A pseudo-terminal that runs `gnano`: key presses in, screen text out.

Each `gnano` is a fork of one process that has loaded torch, with its own standard streams.
"""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>]")
ENTER, ALT_ENTER, CTRL_C, CTRL_D, UP = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A"
TIMEOUT = 60.0  # seconds
SERVER = """
import fcntl, json, os, socket, sys, termios
import gnano.chat.repl, gnano.cli.chat, torch._dynamo  # slow to load
from gnano.cli import main

def run(arguments, environment, hidden):
    os.setsid()
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = open(("stdin", "stdout", "stderr").index(name), mode, encoding="utf-8")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.update(environment)
    sys.modules.update(dict.fromkeys(hidden))  # makes these packages unavailable
    try:
        main(arguments)
    except SystemExit as left:
        return left.code or 0

requests = socket.socket(fileno=int(sys.argv[1]))
while True:
    data, streams, _, _ = socket.recv_fds(requests, 2**16, 3)
    if not data:
        break
    request = json.loads(data)
    if isinstance(request, int):
        answer = os.waitstatus_to_exitcode(os.waitpid(request, 0)[1])
    elif (answer := os.fork()) == 0:
        requests.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        code = 1
        try:
            code = run(*request)
            sys.stdout.flush(), sys.stderr.flush()
        finally:
            os._exit(code)
    for stream in streams:
        os.close(stream)
    requests.send(str(answer).encode())
"""


class ForkServer:
    """Starts `gnano` in forks of one process."""

    def __init__(self) -> None:
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()

    def start(
        self,
        arguments: list[str],
        streams: tuple[int, int, int],
        environment: dict[str, str] | None = None,
        hidden: str = "",
    ) -> int:
        """Start a process and return its id; the streams are closed here."""
        request = json.dumps([arguments, environment or {}, hidden.split()]).encode()
        socket.send_fds(self.requests, [request], streams)
        for stream in set(streams):
            os.close(stream)
        return int(self.requests.recv(100))

    def wait(self, process: int) -> int:
        """Wait for a process and return its exit code."""
        self.requests.send(str(process).encode())
        return int(self.requests.recv(100))

    def close(self) -> None:
        self.requests.close()
        self.process.kill()
        self.process.wait()


class Terminal:
    """A process and its controlling terminal, so that Ctrl-C is a signal."""

    def __init__(
        self, server: ForkServer, arguments: list[str], environment: dict[str, str]
    ) -> None:
        self.controller, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 120))
        hidden = environment.pop("without", "")
        no_cpr = {"PROMPT_TOOLKIT_NO_CPR": "1"}  # cursor position requests stay unanswered
        environment = {"TERM": "xterm-256color", **no_cpr, **environment}
        self.server = server
        self.process = server.start(arguments, (theirs,) * 3, environment, hidden)
        self.ended = False
        self.raw = b""
        self.seen = 0  # characters that `wait_for` has passed

    @property
    def screen(self) -> str:
        return ESCAPES.sub("", self.raw.decode("utf-8", "replace"))

    def press(self, keys: str) -> None:
        os.write(self.controller, keys.encode())

    def wait_for(self, text: str) -> str:
        """Wait until the text is on the screen (again); return the text before it."""
        deadline = time.monotonic() + TIMEOUT
        while (at := self.screen.find(text, self.seen)) < 0:
            assert self._read(deadline), f"{text!r} did not come, but {self.screen[self.seen :]!r}"
        before = self.screen[self.seen : at]
        self.seen = at + len(text)
        return before

    def ready(self) -> str:
        """Wait until the process prompts for a line and sleeps; return the text before the prompt.

        Python's readline would lose a signal between the prompt and the sleep.
        """
        before = self.wait_for("\n>")
        status = Path(f"/proc/{self.process}/stat")
        deadline = time.monotonic() + TIMEOUT
        while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return before

    def end(self) -> int:
        """Wait for the end of the process and return its exit code."""
        deadline = time.monotonic() + TIMEOUT
        while self._read(deadline):
            pass
        assert time.monotonic() < deadline
        self.ended = True
        return self.server.wait(self.process)

    def close(self) -> None:
        if not self.ended:
            os.kill(self.process, signal.SIGKILL)
            self.server.wait(self.process)
        os.close(self.controller)

    def _read(self, deadline: float) -> bool:
        """Read more of the screen; return False at its end."""
        ready, _, _ = select.select([self.controller], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return False
        try:
            data = os.read(self.controller, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw += data
        return bool(data)
