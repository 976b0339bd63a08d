"""How does a program talk with it? Each line a question; the answers, and they alone, out."""

from collections.abc import Iterable

from gnano.chat.commands import perform
from gnano.chat.screen import Screen
from gnano.chat.session import Session
from gnano.utils.terminal import note


def answer_lines(lines: Iterable[str], session: Session, screen: Screen) -> int:
    """The exit code: 2 if a line could not be answered, which stderr says, and 0 otherwise."""
    code = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            result = perform(line.strip(), session)
            if isinstance(result, str):
                screen.note(result)
                continue
            if forgotten := session.speeches[-1].forgotten(session.context):
                screen.note(forgotten)
            say(result, screen)
        except EOFError:
            break
        except ValueError as error:
            note(f"gnano: line {number:,}: {error}")
            code = 2
    return code


def say(reply: Iterable[str], screen: Screen) -> None:
    """All of an answer, on lines of its own."""
    for piece in reply:
        screen.say(piece)
    screen.say("\n")
