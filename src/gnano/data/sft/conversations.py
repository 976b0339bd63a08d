"""Conversations and preferences, parsed from the many forms in which people store them.

    Dolly      {"instruction", "context", "response", "category"}
    Alpaca     {"instruction", "input", "output"}, perhaps "history": [[question, answer], …]
    prompt     {"prompt", "completion"}, each a text or a list of messages
    messages   {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}, …]}
    ShareGPT   {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}

Preferences have two answers, of which the first is the better one:

    text       {"prompt", "chosen", "rejected"}
    messages   {"prompt": […], "chosen": [the answer], "rejected": [the answer]}
    whole      {"chosen": [prompt …, answer], "rejected": [prompt …, answer]}, perhaps with the
               first question as "prompt" again
    Alpaca     {"instruction", "input" or "context", "chosen", "rejected"}

The keys of a record tell which form it has. Each form may have a "system" and a "history" in
addition, and the content of a message may be a list of parts, {"type": "text", "text": …}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
ROLE_ALIASES: dict[str, Role] = {
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


class _GroupedRecord:
    turns: tuple[Turn, ...]
    topic: str

    @property
    def split_key(self) -> str:
        """The text whose hash decides whether the record is held out."""
        return self.topic or next(turn.content for turn in self.turns if turn.role == "user")


@dataclass(frozen=True)
class Conversation(_GroupedRecord):
    """Perhaps a system's turn, then user and assistant in turns; the last word is an answer."""

    turns: tuple[Turn, ...]
    category: str = ""
    topic: str = ""  # conversations about the same are held out together; "": the first question


@dataclass(frozen=True)
class Preference(_GroupedRecord):
    """Perhaps a system's turn, then user and assistant in turns; the last word is a question."""

    turns: tuple[Turn, ...]
    chosen: str
    rejected: str
    category: str = ""
    topic: str = ""  # as in `Conversation`


def parse_conversation(record: Any) -> Conversation:
    """Parse a record; raises ValueError, saying what is wrong, for one of no known form.

    The other functions here do so too, naming the key.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"it is no record but {_type_name(record)}")
    label = _category(record)
    for key in ("messages", "conversations"):
        if key in record:
            turns = _parse_messages(record[key], key, _leading_turns(record))
            return Conversation(_check_answered(turns, key), label)
    for question, context, answer in (
        ("instruction", "context", "response"),
        ("instruction", "input", "output"),
    ):
        if question in record and answer in record:
            turns = (
                *_leading_turns(record),
                Turn("user", _text(record, question), _text(record, context, "")),
                Turn("assistant", _text(record, answer)),
            )
            return Conversation(turns, label)
    if "prompt" in record and "completion" in record:
        turns, completion = _parse_answer(record, "completion", _parse_prompt(record))
        return Conversation((*turns, Turn("assistant", completion)), label)
    raise ValueError(
        f"its keys are {', '.join(map(str, record)) or 'none'}; known are instruction with "
        f"response or output, messages, conversations, and prompt with completion"
    )


def parse_preference(record: Any) -> Preference:
    """Parse a record; raises ValueError, saying what is wrong, for one of no known form."""
    if not isinstance(record, Mapping):
        raise ValueError(f"it is no record but {_type_name(record)}")
    if "chosen" not in record or "rejected" not in record:
        raise ValueError(
            f"its keys are {', '.join(map(str, record)) or 'none'}; known are chosen and rejected, "
            f"with prompt, with instruction, or as whole conversations"
        )
    prompt = _parse_prompt(record)
    turns, chosen = _parse_answer(record, "chosen", prompt)
    other_turns, rejected = _parse_answer(record, "rejected", prompt)
    if turns != other_turns:
        raise ValueError("chosen and rejected answer different conversations")
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same answer")
    return Preference(turns, chosen, rejected, _category(record))


def _parse_messages(value: Any, key: str, before: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the turns before, and those of a list of messages, which follow them."""
    if not isinstance(value, list):
        raise ValueError(f"{key} is {_type_name(value)}, not a list")
    turns = list(before)
    for number, entry in enumerate(value, 1):
        if not isinstance(entry, Mapping):
            raise ValueError(f"{key} {number} is {_type_name(entry)}, not a record")
        for calls in ("tool_calls", "function_call"):
            if entry.get(calls):
                raise ValueError(f"{key} {number} calls tools ({calls}), which cannot be learned")
        role = "from" if "from" in entry and "role" not in entry else "role"
        content = "value" if "value" in entry and "content" not in entry else "content"
        name = _text(entry, role)
        if name not in ROLE_ALIASES:
            raise ValueError(
                f"{role} of {key} {number} is {name!r}, none of {', '.join(ROLE_ALIASES)}"
            )
        expected = ("user", "assistant")[sum(turn.role != "system" for turn in turns) % 2]
        speaker = ROLE_ALIASES[name]
        if speaker == "system" and turns == [Turn("system", _text(entry, content))]:
            continue  # the record's own key says the same
        if speaker != expected and (speaker != "system" or turns):
            raise ValueError(
                f"{key} {number} is the {speaker}'s, where the {expected}'s was to come"
            )
        turns.append(Turn(speaker, _text(entry, content)))
    return tuple(turns)


def _leading_turns(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return what comes before the record's first question: its system's turn, its history."""
    system = _text(record, "system", "")
    turns = [Turn("system", system)] if system else []
    history = record.get("history") or []
    if not isinstance(history, list):
        raise ValueError(f"history is {_type_name(history)}, not a list of pairs")
    for number, pair in enumerate(history, 1):
        if not (isinstance(pair, list) and len(pair) == 2):
            raise ValueError(f"history {number} is no pair of question and answer")
        question, answer = (_text({"text": content}, "text") for content in pair)
        turns += [Turn("user", question), Turn("assistant", answer)]
    return tuple(turns)


def _parse_prompt(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return the turns that an answer follows; none where the record does not tell them apart."""
    before = _leading_turns(record)
    if isinstance(record.get("prompt"), list):
        turns = _parse_messages(record["prompt"], "prompt", before)
        if not turns or turns[-1].role != "user":
            raise ValueError("prompt does not end with a question")
        return turns
    if record.get("prompt") is not None:
        return (*before, Turn("user", _text(record, "prompt")))
    if "instruction" in record:
        context = _text(record, "context", "") or _text(record, "input", "")
        return (*before, Turn("user", _text(record, "instruction"), context))
    return ()


def _parse_answer(
    record: Mapping[str, Any], key: str, prompt: tuple[Turn, ...]
) -> tuple[tuple[Turn, ...], str]:
    """Return what is answered by the text or the messages of a key, and the answer."""
    value = record[key]
    if not isinstance(value, list):
        answer = _text(record, key)
        if not prompt:
            raise ValueError("it has no prompt")
        return prompt, answer
    first = value[0] if value else None
    begins_with_prompt = (
        isinstance(first, Mapping) and first.get("role", first.get("from")) != "assistant"
    )
    if begins_with_prompt and not isinstance(record.get("prompt"), list):
        turns = _parse_messages(value, key, _leading_turns(record))
    else:
        turns = _parse_messages(value, key, prompt or _leading_turns(record))
    _check_answered(turns, key)
    if prompt and prompt[-1] not in turns:
        raise ValueError(f"{key} does not begin with the prompt")
    return turns[:-1], turns[-1].content


def _check_answered(turns: tuple[Turn, ...], key: str) -> tuple[Turn, ...]:
    """Return the turns if they end with an answer."""
    if not turns or turns[-1].role != "assistant":
        raise ValueError(f"{key} does not end with an answer")
    return turns


def _category(record: Mapping[str, Any]) -> str:
    """Return the record's category; "" where it has none."""
    category = record.get("category")
    return category if isinstance(category, str) else ""


def _text(record: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return the text of a key, which must not be missing or empty, unless there is a default."""
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
        raise ValueError(f"{key} is {_type_name(value)}, not text")
    if default is None and not value.strip():
        raise ValueError(f"{key} is empty")
    return value.strip()


def _type_name(value: Any) -> str:
    """Return what a person calls this kind of value."""
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return "nothing" if value is None else kinds.get(type(value), "a record")
