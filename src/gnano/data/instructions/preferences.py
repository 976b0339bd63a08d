"""Which of two answers is the better one? One form for those in which people store it.

    text       {"prompt", "chosen", "rejected"}
    messages   {"prompt": […], "chosen": [the answer], "rejected": [the answer]}
    whole      {"chosen": [prompt …, answer], "rejected": [prompt …, answer]}, perhaps with the
               first question as "prompt" again
    Alpaca     {"instruction", "input" or "context", "chosen", "rejected"}

Which of them a record is, its keys tell, and whether they hold text or lists of messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gnano.data.instructions.conversations import (
    Turn,
    answered,
    category_of,
    kind_of,
    text_of,
    turns_of,
)


@dataclass(frozen=True)
class Preference:
    """Perhaps a system's turn, then user and assistant in turns; the last word is a question."""

    turns: tuple[Turn, ...]
    chosen: str
    rejected: str
    category: str = ""
    about: str = ""  # preferences about the same are held out together; "": the first question

    @property
    def group(self) -> str:
        """What decides, by its hash, whether it is held out."""
        return self.about or next(turn.content for turn in self.turns if turn.role == "user")


def preference_of(record: Any) -> Preference:
    """Raises ValueError, saying what is wrong, for a record that is no such thing."""
    if not isinstance(record, Mapping):
        raise ValueError(f"it is no record but {kind_of(record)}")
    if "chosen" not in record or "rejected" not in record:
        raise ValueError(
            f"its keys are {', '.join(map(str, record)) or 'none'}; known are chosen and rejected, "
            f"with prompt, with instruction, or as whole conversations"
        )
    prompt = _prompt(record)
    turns, chosen = _side(record, "chosen", prompt)
    others, rejected = _side(record, "rejected", prompt)
    if turns != others:
        raise ValueError("chosen and rejected answer different conversations")
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same answer")
    return Preference(turns, chosen, rejected, category_of(record))


def _prompt(record: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The turns that both answers follow; none where the record does not tell them apart."""
    if isinstance(record.get("prompt"), list):
        turns = turns_of(record["prompt"], "prompt")
        if not turns or turns[-1].role != "user":
            raise ValueError("prompt does not end with a question")
        return turns
    if record.get("prompt") is not None:
        return (Turn("user", text_of(record, "prompt")),)
    if "instruction" in record:
        context = text_of(record, "context", "") or text_of(record, "input", "")
        return (Turn("user", text_of(record, "instruction"), context),)
    return ()


def _side(
    record: Mapping[str, Any], key: str, prompt: tuple[Turn, ...]
) -> tuple[tuple[Turn, ...], str]:
    """What is answered, and the answer."""
    value = record[key]
    if not isinstance(value, list):
        answer = text_of(record, key)
        if not prompt:
            raise ValueError("it has no prompt")
        return prompt, answer
    if prompt and _is_whole(value) and not isinstance(record.get("prompt"), list):
        turns = answered(turns_of(value, key), key)
        if prompt[0] not in turns[:2]:
            raise ValueError(f"{key} does not begin with the prompt")
    else:
        turns = answered(turns_of(value, key, before=prompt), key)
    return turns[:-1], turns[-1].content


def _is_whole(messages: list[Any]) -> bool:
    """Do these begin before the answer?"""
    first = messages[0] if messages else None
    return isinstance(first, Mapping) and first.get("role") != "assistant"
