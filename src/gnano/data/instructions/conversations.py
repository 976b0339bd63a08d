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
        raise ValueError(f"it is no record but {kind_of(record)}")
    label = category_of(record)
    for key, role, content in (("messages", "role", "content"), ("conversations", "from", "value")):
        if key in record:
            return Conversation(answered(turns_of(record[key], key, role, content), key), label)
    for question, context, answer in (
        ("instruction", "context", "response"),
        ("instruction", "input", "output"),
    ):
        if question in record and answer in record:
            asked = Turn("user", text_of(record, question), text_of(record, context, ""))
            return Conversation((asked, Turn("assistant", text_of(record, answer))), label)
    raise ValueError(
        f"its keys are {', '.join(map(str, record)) or 'none'}; known are instruction with "
        f"response or output, messages, and conversations"
    )


def turns_of(
    value: Any,
    key: str,
    role: str = "role",
    content: str = "content",
    before: tuple[Turn, ...] = (),
) -> tuple[Turn, ...]:
    """The turns before, and those of a list of messages, which follow them.

    This and what stands below raises ValueError, naming the key, for what is no such thing.
    """
    if not isinstance(value, list):
        raise ValueError(f"{key} is {kind_of(value)}, not a list")
    turns = list(before)
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, Mapping):
            raise ValueError(f"{key} {number} is {kind_of(entry)}, not a record")
        named = text_of(entry, role)
        if named not in ROLES:
            raise ValueError(f"{role} of {key} {number} is {named!r}, none of {', '.join(ROLES)}")
        expected = ("user", "assistant")[sum(turn.role != "system" for turn in turns) % 2]
        who = ROLES[named]
        if who != expected and (who != "system" or turns):
            raise ValueError(f"{key} {number} is the {who}'s, where the {expected}'s was to come")
        turns.append(Turn(who, text_of(entry, content)))
    return tuple(turns)


def answered(turns: tuple[Turn, ...], key: str) -> tuple[Turn, ...]:
    """The turns, which end with an answer."""
    if not turns or turns[-1].role != "assistant":
        raise ValueError(f"{key} does not end with an answer")
    return turns


def category_of(record: Mapping[str, Any]) -> str:
    """Empty where there is none."""
    category = record.get("category")
    return category if isinstance(category, str) else ""


def text_of(record: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """A text that is there and says something, unless there is a default."""
    value = record.get(key, default)
    if value is None and default is not None:
        return default
    if value is None:
        raise ValueError(f"it has no {key}")
    if not isinstance(value, str):
        raise ValueError(f"{key} is {kind_of(value)}, not text")
    if default is None and not value.strip():
        raise ValueError(f"{key} is empty")
    return value.strip()


def kind_of(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return "nothing" if value is None else kinds.get(type(value), "a record")
