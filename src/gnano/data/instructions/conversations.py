"""What was asked, and what was answered? One form for the many in which people store it.

    Dolly      {"instruction", "context", "response", "category"}
    Alpaca     {"instruction", "input", "output"}, perhaps "history": [[question, answer], …]
    prompt     {"prompt", "completion"}, each a text or a list of messages
    messages   {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}, …]}
    ShareGPT   {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}

Which of them a record is, its keys tell. Each may have a "system" beside them, and a message's
content may be a list of parts, {"type": "text", "text": …}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
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
    for key in ("messages", "conversations"):
        if key in record:
            turns = turns_of(record[key], key, before=context_of(record))
            return Conversation(answered(turns, key), label)
    for question, context, answer in (
        ("instruction", "context", "response"),
        ("instruction", "input", "output"),
    ):
        if question in record and answer in record:
            asked = Turn("user", text_of(record, question), text_of(record, context, ""))
            said = Turn("assistant", text_of(record, answer))
            return Conversation((*context_of(record), asked, said), label)
    if "prompt" in record and "completion" in record:
        turns, completion = answer_to(record, "completion", prompt_of(record))
        return Conversation((*turns, Turn("assistant", completion)), label)
    raise ValueError(
        f"its keys are {', '.join(map(str, record)) or 'none'}; known are instruction with "
        f"response or output, messages, conversations, and prompt with completion"
    )


def turns_of(
    value: Any,
    key: str,
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
        for calls in ("tool_calls", "function_call"):
            if entry.get(calls):
                raise ValueError(f"{key} {number} calls tools ({calls}), which cannot be learned")
        role = "from" if "from" in entry and "role" not in entry else "role"
        content = "value" if "value" in entry and "content" not in entry else "content"
        named = text_of(entry, role)
        if named not in ROLES:
            raise ValueError(f"{role} of {key} {number} is {named!r}, none of {', '.join(ROLES)}")
        expected = ("user", "assistant")[sum(turn.role != "system" for turn in turns) % 2]
        who = ROLES[named]
        if who == "system" and turns == [Turn("system", text_of(entry, content))]:
            continue  # the record's own key says the same
        if who != expected and (who != "system" or turns):
            raise ValueError(f"{key} {number} is the {who}'s, where the {expected}'s was to come")
        turns.append(Turn(who, text_of(entry, content)))
    return tuple(turns)


def context_of(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """What comes before the first question of the record's own: its system's turn, its history."""
    turns = []
    if system := text_of(record, "system", ""):
        turns.append(Turn("system", system))
    history = record.get("history") or []
    if not isinstance(history, list):
        raise ValueError(f"history is {kind_of(history)}, not a list of pairs")
    for number, pair in enumerate(history, 1):
        if not (isinstance(pair, list) and len(pair) == 2):
            raise ValueError(f"history {number} is no pair of question and answer")
        for role, content in zip(("user", "assistant"), pair, strict=True):
            text = text_of({"text": content}, "text")
            turns.append(Turn("user" if role == "user" else "assistant", text))
    return tuple(turns)


def prompt_of(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns that an answer follows; none where the record does not tell them apart."""
    before = context_of(record)
    if isinstance(record.get("prompt"), list):
        turns = turns_of(record["prompt"], "prompt", before)
        if not turns or turns[-1].role != "user":
            raise ValueError("prompt does not end with a question")
        return turns
    if record.get("prompt") is not None:
        return (*before, Turn("user", text_of(record, "prompt")))
    if "instruction" in record:
        context = text_of(record, "context", "") or text_of(record, "input", "")
        return (*before, Turn("user", text_of(record, "instruction"), context))
    return ()


def answer_to(
    record: Mapping[str, Any], key: str, prompt: tuple[Turn, ...]
) -> tuple[tuple[Turn, ...], str]:
    """What is answered by the text or the messages of a key, and the answer."""
    value = record[key]
    if not isinstance(value, list):
        answer = text_of(record, key)
        if not prompt:
            raise ValueError("it has no prompt")
        return prompt, answer
    if _is_whole(value) and not isinstance(record.get("prompt"), list):
        turns = answered(turns_of(value, key, context_of(record)), key)
        if prompt and prompt[-1] not in turns:
            raise ValueError(f"{key} does not begin with the prompt")
    else:
        turns = answered(turns_of(value, key, prompt or context_of(record)), key)
    return turns[:-1], turns[-1].content


def _is_whole(messages: list[Any]) -> bool:
    """Do these begin before the answer?"""
    first = messages[0] if messages else None
    return isinstance(first, Mapping) and first.get("role", first.get("from")) != "assistant"


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
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        for part in value:
            if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"{key} has a part of type {part.get('type')!r}, not text")
        value = "".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise ValueError(f"{key} is {kind_of(value)}, not text")
    if default is None and not value.strip():
        raise ValueError(f"{key} is empty")
    return value.strip()


def kind_of(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return "nothing" if value is None else kinds.get(type(value), "a record")
