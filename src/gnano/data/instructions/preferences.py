"""Which of two answers is the better one? One form for those in which people store it.

    text       {"prompt", "chosen", "rejected"}
    messages   {"prompt": […], "chosen": [the answer], "rejected": [the answer]}
    whole      {"chosen": [prompt …, answer], "rejected": [prompt …, answer]}, perhaps with the
               first question as "prompt" again
    Alpaca     {"instruction", "input" or "context", "chosen", "rejected"}

Which of them a record is, its keys tell, and whether they hold text or lists of messages. Each may
have a "system" and a "history" beside them, as in `conversations`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gnano.data.instructions.conversations import (
    Turn,
    answer_to,
    category_of,
    kind_of,
    prompt_of,
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
    prompt = prompt_of(record)
    turns, chosen = answer_to(record, "chosen", prompt)
    others, rejected = answer_to(record, "rejected", prompt)
    if turns != others:
        raise ValueError("chosen and rejected answer different conversations")
    if chosen == rejected:
        raise ValueError("chosen and rejected are the same answer")
    return Preference(turns, chosen, rejected, category_of(record))
