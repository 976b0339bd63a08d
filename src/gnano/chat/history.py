"""What was said? Questions with their answers: turns for the model, messages in a file.

    {"messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", …}, …]}

The file is a record that `gnano sft` learns from. An answer that was stopped has
`"stopped": true` beside its text, so that whoever learns from it can leave it out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from gnano.data.instructions import Conversation, Turn, read_conversations
from gnano.utils.atomic_io import write_text
from gnano.utils.json_text import json_text
from gnano.utils.text import read_text

SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Exchange:
    question: str
    answer: str  # never empty: what says nothing is no training data
    stopped: bool = False  # by the user, before the model ended it


@dataclass(frozen=True)
class History:
    system: str = ""  # what the model is told before the first question
    exchanges: tuple[Exchange, ...] = ()

    def turns(self) -> tuple[Turn, ...]:
        """As the model is asked, and tuned."""
        said = [Turn("system", self.system)] if self.system else []
        for exchange in self.exchanges:
            said += [Turn("user", exchange.question), Turn("assistant", exchange.answer)]
        return tuple(said)

    def save(self, path: Path) -> Path:
        """Write the file, and say which; raises ValueError, in a sentence, where it cannot be.

        A file that is there is replaced if it holds a conversation, and only then.
        """
        if not self.exchanges:
            raise ValueError("Nothing was said yet that could be saved; ask something first.")
        path = _named(path)
        if path.suffix not in SUFFIXES:
            raise ValueError(f"{path} is no name for a conversation; end it in .json.")
        if path.exists():
            try:
                History.load(path)
            except ValueError:
                raise ValueError(
                    f"{path} exists and holds something else than a conversation; choose another "
                    f"name."
                ) from None
        try:
            write_text(path, self._json(None if path.suffix == ".jsonl" else 2) + "\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    @classmethod
    def load(cls, path: Path) -> "History":
        """The one conversation of a file, of any form that `gnano sft` reads.

        Raises ValueError, in a sentence, where there is none, or more.
        """
        path = path.expanduser() if path.expanduser().is_file() else _named(path)
        if not path.is_file():
            raise ValueError(f"There is no file {path}.")
        try:
            found = read_conversations([str(path)]).records
            if len(found) > 1:
                raise ValueError(f"it holds {len(found):,} conversations, and one can go on")
            return cls.of(found[0], _marks(path))
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
        except ValueError as error:
            reason = shorten(str(error), 250, placeholder=" …").rstrip(".")
            raise ValueError(f"{path} cannot be loaded: {reason}.") from None

    @classmethod
    def of(cls, conversation: Conversation, stopped: list[bool]) -> "History":
        turns = list(conversation.turns)
        system = turns.pop(0).content if turns[0].role == "system" else ""
        exchanges: list[Exchange] = []
        for asked, said in zip(turns[::2], turns[1::2], strict=True):
            question = f"{asked.content}\n\n{asked.context}".strip()
            mark = len(exchanges) < len(stopped) and stopped[len(exchanges)]
            exchanges.append(Exchange(question, said.content, mark))
        return cls(system, tuple(exchanges))

    def _json(self, indent: int | None) -> str:
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for exchange in self.exchanges:
            mark = {"stopped": True} if exchange.stopped else {}
            messages.append({"role": "user", "content": exchange.question})
            messages.append({"role": "assistant", "content": exchange.answer, **mark})
        return json_text({"messages": messages}, ensure_ascii=False, indent=indent)


def _named(path: Path) -> Path:
    """The file that a person means who writes `~`, or leaves out `.json`."""
    path = path.expanduser()
    return path if path.suffix or not path.name else path.with_name(f"{path.name}.json")


def _marks(path: Path) -> list[bool]:
    """Which answers were stopped; other programs' files do not say."""
    try:
        messages = json.loads(read_text(path))["messages"]
        return [bool(entry.get("stopped")) for entry in messages if entry["role"] == "assistant"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []
