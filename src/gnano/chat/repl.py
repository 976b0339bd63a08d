"""How does a person talk with it? Lines in, answers and notes out, until they leave.

Ctrl-C stops what runs: an answer; then the line that is being typed; then, twice, the program.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gnano.chat.commands import perform
from gnano.chat.lines import Lines
from gnano.chat.screen import Screen
from gnano.chat.session import Session


class Repl:
    def __init__(self, session: Session, lines: Lines, screen: Screen) -> None:
        self.session, self.lines, self.screen = session, lines, screen
        self.presses = 0  # of Ctrl-C in a row, on a line without text

    def run(self) -> None:
        """Returns when the person leaves."""
        while True:
            try:
                line = self.lines.read()
                self.presses = 0
                if line.strip():
                    self._take(line.strip())
            except KeyboardInterrupt as interrupt:
                if self._leaves(interrupt):
                    return
            except EOFError:
                return
            except ValueError as error:
                self.screen.note(str(error))

    def _take(self, line: str) -> None:
        result = perform(line, self.session)
        if isinstance(result, str):
            self.screen.note(result)
            return
        if forgotten := self.session.speeches[-1].forgotten(self.session.context):
            self.screen.note(forgotten)
        with interruptions() as interrupted:
            try:
                for piece in result:
                    self.screen.say(piece)
                    if interrupted():
                        break
            except KeyboardInterrupt:
                pass
            finally:
                result.close()
        self.screen.say("\n")
        speech = self.session.speeches[-1]
        if self.screen.beside:
            self.screen.note(str(speech))
        if not speech.answer:
            self.screen.note("Nothing was said, so nothing is remembered; /regen asks again.")

    def _leaves(self, interrupt: KeyboardInterrupt) -> bool:
        typed = bool(interrupt.args and interrupt.args[0])
        self.presses = 0 if typed else self.presses + 1
        if self.presses == 1:
            self.screen.note("Ctrl-C again, or Ctrl-D, leaves.")
        return self.presses > 1


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Was Ctrl-C pressed? The first press is only noted, so that no token is left half computed.

    A second one interrupts whatever runs: a long prompt is read in one go.
    """
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
