"""The questions and answers of a conversation: turns for the model, messages in a file.

    {"messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", …}, …]}

The file is a record that `gnano sft` learns from. An answer that was stopped has
`"stopped": true` beside its text, so that whoever learns from it can leave it out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from gnano.data.instructions.conversations import Turn
from gnano.data.instructions.reading import read_conversation_files
from gnano.utils.atomic_io import atomic_write_text
from gnano.utils.json_text import dump_json
from gnano.utils.text import read_text

FILE_SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Exchange:
    question: str
    answer: str  # never empty: what says nothing is no training data
    was_stopped: bool = False  # by the user, before the model ended it


@dataclass(frozen=True)
class ConversationHistory:
    system_prompt: str = ""  # what the model is told before the first question
    exchanges: tuple[Exchange, ...] = ()

    def to_turns(self) -> tuple[Turn, ...]:
        """Return the turns of which a prompt is made."""
        turns = [Turn("system", self.system_prompt)] if self.system_prompt else []
        for exchange in self.exchanges:
            turns += [Turn("user", exchange.question), Turn("assistant", exchange.answer)]
        return tuple(turns)

    def save(self, path: Path) -> Path:
        """Write the file and return its path; raises ValueError, in a sentence, on failure.

        A file that is there is replaced if it holds a conversation, and only then.
        """
        if not self.exchanges:
            raise ValueError("Nothing was said yet that could be saved; ask something first.")
        path = _with_suffix(path.expanduser())
        if path.suffix not in FILE_SUFFIXES:
            raise ValueError(f"{path} is no name for a conversation; end it in .json.")
        if path.exists():
            try:
                ConversationHistory.load(path)
            except ValueError:
                raise ValueError(
                    f"{path} exists and holds something else than a conversation; choose another "
                    f"name."
                ) from None
        messages: list[dict[str, Any]] = [
            {"role": turn.role, "content": turn.content} for turn in self.to_turns()
        ]
        answers = (message for message in messages if message["role"] == "assistant")
        for message, exchange in zip(answers, self.exchanges, strict=True):
            if exchange.was_stopped:
                message["stopped"] = True
        indent = None if path.suffix == ".jsonl" else 2
        text = dump_json({"messages": messages}, ensure_ascii=False, indent=indent)
        try:
            atomic_write_text(path, text + "\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    @classmethod
    def load(cls, path: Path) -> "ConversationHistory":
        """Read the one conversation of a file, of any form that `gnano sft` reads.

        Raises ValueError, in a sentence, where there is none, or more.
        """
        path = path.expanduser()
        path = path if path.is_file() else _with_suffix(path)
        if not path.is_file():
            raise ValueError(f"There is no file {path}.")
        try:
            found = read_conversation_files([str(path)]).records
            if len(found) > 1:
                raise ValueError(f"it holds {len(found):,} conversations, and one can go on")
            stopped = _stopped_answers(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
        except ValueError as error:
            reason = shorten(str(error), 250, placeholder=" …").rstrip(".")
            raise ValueError(f"{path} cannot be loaded: {reason}.") from None
        turns = list(found[0].turns)
        system = turns.pop(0).content if turns[0].role == "system" else ""
        exchanges: list[Exchange] = []
        for asked, answer in zip(turns[::2], turns[1::2], strict=True):
            question = f"{asked.content}\n\n{asked.context}".strip()
            exchanges.append(Exchange(question, answer.content, len(exchanges) in stopped))
        return cls(system, tuple(exchanges))


def _with_suffix(path: Path) -> Path:
    """Return the file that a person means who leaves out `.json`."""
    return path if path.suffix or not path.name else path.with_name(f"{path.name}.json")


def _stopped_answers(path: Path) -> set[int]:
    """Return the numbers of the answers that were stopped; other programs' files do not say."""
    try:
        messages = json.loads(read_text(path))["messages"]
        answers = [entry for entry in messages if entry["role"] == "assistant"]
        return {number for number, entry in enumerate(answers) if entry.get("stopped")}
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()
