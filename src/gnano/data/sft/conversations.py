"""Conversations and preferences, and parsers for the record formats in common use.

    Dolly      {"instruction", "context", "response", "category"}
    Alpaca     {"instruction", "input", "output"}, optionally "history": [[question, answer], …]
    prompt     {"prompt", "completion"}, each a text or a list of messages
    messages   {"messages": [{"role": "user", "content": …}, {"role": "assistant", …}, …]}
    ShareGPT   {"conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}

Preferences have two answers, a better and a worse one:

    text       {"prompt", "chosen", "rejected"}
    messages   {"prompt": […], "chosen": [the answer], "rejected": [the answer]}
    complete   {"chosen": [prompt …, answer], "rejected": [prompt …, answer]}, optionally with
               the first question repeated as "prompt"
    Alpaca     {"instruction", "input" or "context", "chosen", "rejected"}

The keys of a record determine its format. Each format may have a "system" and a "history" in
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
    """One message of a conversation."""

    role: Role
    content: str
    context: str = ""  # of a user turn: the text that the question refers to


class _GroupedRecord:
    turns: tuple[Turn, ...]
    topic: str

    @property
    def split_key(self) -> str:
        """The text whose hash decides whether the record is held out."""
        return self.topic or next(turn.content for turn in self.turns if turn.role == "user")


@dataclass(frozen=True)
class Conversation(_GroupedRecord):
    """An optional system turn, then user and assistant alternately, ending with an answer."""

    turns: tuple[Turn, ...]
    category: str = ""
    topic: str = ""  # conversations of one topic are held out together; "": the first question


@dataclass(frozen=True)
class Preference(_GroupedRecord):
    """A conversation that ends with a question, a better and a worse answer to it."""

    turns: tuple[Turn, ...]
    chosen: str
    rejected: str
    category: str = ""
    topic: str = ""  # as in `Conversation`


def parse_conversation(record: Any) -> Conversation:
    """Parse a record of any of the formats above; raise ValueError if it has none of them."""
    if not isinstance(record, Mapping):
        raise ValueError(f"it is not a record but {_type_name(record)}")
    label = _category(record)
    for key in ("messages", "conversations"):
        if key in record:
            turns = _parse_messages(record[key], key, _leading_turns(record))
            return Conversation(_check_answered(turns, key), label)
    for context, answer in ("context", "response"), ("input", "output"):
        if "instruction" in record and answer in record:
            before = _leading_turns(record)
            user = Turn("user", _text(record, "instruction"), _text(record, context, ""))
            turns = (*before, user, Turn("assistant", _text(record, answer)))
            return Conversation(turns, label)
    if "prompt" in record and "completion" in record:
        turns, completion = _parse_answer(record, "completion", _parse_prompt(record))
        return Conversation((*turns, Turn("assistant", completion)), label)
    raise ValueError(
        f"its keys are {', '.join(map(str, record)) or 'none'}; known are instruction with "
        f"response or output, messages, conversations, and prompt with completion"
    )


def parse_preference(record: Any) -> Preference:
    """Parse a record with two answers; raise ValueError if it has none of the formats above."""
    if not isinstance(record, Mapping):
        raise ValueError(f"it is not a record but {_type_name(record)}")
    if "chosen" not in record or "rejected" not in record:
        raise ValueError(
            f"its keys are {', '.join(map(str, record)) or 'none'}; known are chosen and rejected, "
            f"with prompt, with instruction, or as complete conversations"
        )
    prompt = _parse_prompt(record)
    turns, chosen = _parse_answer(record, "chosen", prompt)
    other_turns, rejected = _parse_answer(record, "rejected", prompt)
    if turns != other_turns:
        raise ValueError("chosen and rejected have different prompts")
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same answer")
    return Preference(turns, chosen, rejected, _category(record))


def parse_prompt_messages(messages: Any) -> tuple[Turn, ...]:
    """Return the turns before an answer; raise ValueError if they do not end with a question.

    System messages at the start are joined; programs send several, and empty ones.
    """
    rest, texts = messages, []
    while (
        isinstance(rest, list)
        and rest
        and isinstance(rest[0], Mapping)
        and ROLE_ALIASES.get(str(rest[0].get("role"))) == "system"
    ):
        texts.append(_text(rest[0], "content", ""))
        rest = rest[1:]
    system = "\n\n".join(filter(None, texts))
    turns = _parse_messages(rest, "messages", (Turn("system", system),) if system else ())
    if not turns or turns[-1].role != "user":
        raise ValueError("messages do not end with the user's")
    return turns


def _parse_messages(value: Any, key: str, before: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the turns `before` and those of a list of messages."""
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
            continue  # a repetition of the record's "system"
        if speaker != expected and (speaker != "system" or turns):
            raise ValueError(
                f"{key} {number} is the {speaker}'s, where the {expected}'s is expected"
            )
        turns.append(Turn(speaker, _text(entry, content)))
    return tuple(turns)


def _leading_turns(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return the turns before the record's first question: the system turn and the history."""
    system = _text(record, "system", "")
    turns = [Turn("system", system)] if system else []
    history = record.get("history") or []
    if not isinstance(history, list):
        raise ValueError(f"history is {_type_name(history)}, not a list of pairs")
    for number, pair in enumerate(history, 1):
        if not (isinstance(pair, list) and len(pair) == 2):
            raise ValueError(f"history {number} is not a pair of question and answer")
        question, answer = (_text({"text": content}, "text") for content in pair)
        turns += [Turn("user", question), Turn("assistant", answer)]
    return tuple(turns)


def _parse_prompt(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return the turns before the answers; none if they are part of the answers' messages."""
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
    """Return the prompt and the answer of a key's text or messages."""
    value = record[key]
    if not isinstance(value, list):
        answer = _text(record, key)
        if not prompt:
            raise ValueError("it has no prompt")
        return prompt, answer
    first = value[0] if value else None
    has_prompt = isinstance(first, Mapping) and first.get("role", first.get("from")) != "assistant"
    is_complete = not prompt or (has_prompt and not isinstance(record.get("prompt"), list))
    before = _leading_turns(record) if is_complete else prompt
    turns = _check_answered(_parse_messages(value, key, before), key)
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
    """Return the text of a key; raise ValueError if it is missing or empty without a default."""
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
    """Return the name of a JSON value's type for error messages."""
    kinds = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return "nothing" if value is None else kinds.get(type(value), "a record")
