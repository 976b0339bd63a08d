"""What was asked, and what was answered? One form for the many in which people store it.

    Dolly      {"instruction", "context", "response", "category"}
    Alpaca     {"instruction", "input", "output"}
    messages   {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}, …]}
    ShareGPT   {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}

Which of them a record is, its keys tell.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Turn:
    role: Role
    content: str
    context: str = ""  # of a user's turn: what the question is about


@dataclass(frozen=True)
class Conversation:
    """Perhaps a system's turn, then user and assistant in turns; the last word is an answer."""

    turns: tuple[Turn, ...]
    category: str = ""
    about: str = ""  # conversations about the same are held out together; "": the first question

    @property
    def group(self) -> str:
        """What decides, by its hash, whether it is held out."""
        return self.about or next(turn.content for turn in self.turns if turn.role == "user")


def conversation_of(record: Any) -> Conversation:
    """Raises ValueError, saying what is wrong, for a record that is no such thing."""
    if not isinstance(record, Mapping):
        raise ValueError(f"it is no record but {_kind(record)}")
    category = record.get("category")
    label = category if isinstance(category, str) else ""
    for key, role, content in (("messages", "role", "content"), ("conversations", "from", "value")):
        if key in record:
            return Conversation(_turns(record[key], key, role, content), label)
    for question, context, answer in (
        ("instruction", "context", "response"),
        ("instruction", "input", "output"),
    ):
        if question in record and answer in record:
            asked = Turn("user", _text(record, question), _text(record, context, ""))
            return Conversation((asked, Turn("assistant", _text(record, answer))), label)
    raise ValueError(
        f"its keys are {', '.join(map(str, record)) or 'none'}; known are instruction with "
        f"response or output, messages, and conversations"
    )


def _turns(value: Any, key: str, role: str, content: str) -> tuple[Turn, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{key} is {_kind(value)}, not a list")
    turns: list[Turn] = []
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, Mapping):
            raise ValueError(f"{key} {number} is {_kind(entry)}, not a record")
        named = _text(entry, role)
        if named not in ROLES:
            raise ValueError(f"{role} of {key} {number} is {named!r}, none of {', '.join(ROLES)}")
        expected = ("user", "assistant")[sum(turn.role != "system" for turn in turns) % 2]
        who = ROLES[named]
        if who != expected and (who != "system" or turns):
            raise ValueError(f"{key} {number} is the {who}'s, where the {expected}'s was to come")
        turns.append(Turn(who, _text(entry, content)))
    if not turns or turns[-1].role != "assistant":
        raise ValueError(f"{key} does not end with an answer")
    return tuple(turns)


def _text(record: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = record.get(key, default)
    if value is None and default is not None:
        return default
    if value is None:
        raise ValueError(f"it has no {key}")
    if not isinstance(value, str):
        raise ValueError(f"{key} is {_kind(value)}, not text")
    if default is None and not value.strip():
        raise ValueError(f"{key} is empty")
    return value.strip()


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return "nothing" if value is None else kinds.get(type(value), "a record")
