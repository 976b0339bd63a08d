"""A conversation with a model: its settings, and its history in a file.

A saved conversation is a record that `gnano sft` can train on. An answer that the user stopped has
`"stopped": true`, so that training can leave it out:

    {"messages": [{"role": "system", …}, {"role": "user", …}, {"role": "assistant", …}, …]}
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.data.sft.conversations import parse_conversation
from gnano.data.sft.record_loading import read_record_files
from gnano.utils.files import atomic_write_text, dump_json, read_text
from gnano.utils.validation import Range


@dataclass(frozen=True, kw_only=True)
class ChatSettings(SamplingParams):
    """The settings that `/set` changes: sampling parameters and the length of answers."""

    tokens: Annotated[int, Range(1, MAX_COUNT)] = 256  # maximum length of an answer

    def with_value(self, name: str, value: str) -> "ChatSettings":
        """Return a copy with one setting parsed from text; `top-k` means `top_k`, `none` None.

        Raises ValueError for an unknown name or a value that does not fit.
        """
        name = name.replace("-", "_")
        kinds = get_type_hints(ChatSettings)
        if name not in kinds:
            raise ValueError(f"There is no setting {name!r}; the settings are {', '.join(kinds)}.")
        is_optional = get_origin(kinds[name]) is UnionType  # int | None
        kind = get_args(kinds[name])[0] if is_optional else kinds[name]
        is_none = value.lower() == "none"
        expected = "a whole number" if kind is int else "a number"
        parsed: Any = None
        try:
            if get_origin(kind) is tuple:
                expected = "pairs of a token and a number, such as 13:-5,42:1.5"
                pairs = [] if is_none else [pair.split(":") for pair in value.split(",")]
                parsed = tuple((int(token), float(number)) for token, number in pairs)
            elif not (is_optional and is_none):
                parsed = kind(value)
        except ValueError:
            raise ValueError(f"{name} is {value!r}; it must be {expected}.") from None
        return replace(self, **{name: parsed})

    def format_value(self, name: str) -> str:
        """Return the value of a setting in the form that `with_value` parses."""
        value = getattr(self, name.replace("-", "_"))
        if isinstance(value, tuple):
            return ",".join(f"{token}:{bias:g}" for token, bias in value) or "none"
        return "none" if value is None else str(value)


@dataclass(frozen=True)
class Exchange:
    """A question and its answer."""

    question: str
    answer: str  # never empty: an empty answer is not training data
    was_stopped: bool = False  # by the user, before the model ended it


@dataclass(frozen=True)
class ConversationHistory:
    """The system prompt and all exchanges of a conversation."""

    system_prompt: str = ""
    exchanges: tuple[Exchange, ...] = ()

    def save(self, path: Path) -> Path:
        """Write the file and return its path, with `.json` added to a name without a suffix.

        An existing file is replaced only if it holds a conversation. Raises ValueError where
        nothing can be written.
        """
        if not self.exchanges:
            raise ValueError("The conversation is empty; ask a question before you save it.")
        path = _with_suffix(path.expanduser())
        if path.suffix not in (".json", ".jsonl"):
            raise ValueError(f"{path} does not end in .json or .jsonl; choose such a name.")
        if path.exists():
            try:
                ConversationHistory.load(path)
            except ValueError:
                raise ValueError(
                    f"{path} exists and is not a conversation; choose another name."
                ) from None
        system = {"role": "system", "content": self.system_prompt}
        messages: list[dict[str, Any]] = [system] if self.system_prompt else []
        for exchange in self.exchanges:
            messages.append({"role": "user", "content": exchange.question})
            messages.append({"role": "assistant", "content": exchange.answer})
            if exchange.was_stopped:
                messages[-1]["stopped"] = True
        indent = None if path.suffix == ".jsonl" else 2
        text = dump_json({"messages": messages}, ensure_ascii=False, indent=indent)
        try:
            atomic_write_text(path, text + "\n")
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}.") from None
        return path

    @classmethod
    def load(cls, path: Path) -> "ConversationHistory":
        """Read the only conversation of a file, in any format that `gnano sft` reads.

        Raises ValueError where the file has none, or more than one.
        """
        if not (path := path.expanduser()).is_file():
            path = _with_suffix(path)
        if not path.is_file():
            raise ValueError(f"There is no file {path}.")
        try:
            found = read_record_files([str(path)], parse_conversation).records
            if len(found) > 1:
                raise ValueError(f"it holds {len(found):,} conversations instead of one")
            stopped = _stopped_answers(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
        except ValueError as error:
            reason = shorten(str(error), 250, placeholder=" …").rstrip(".")
            raise ValueError(f"{path} cannot be loaded: {reason}.") from None
        turns = list(found[0].turns)
        system = turns.pop(0).content if turns[0].role == "system" else ""
        pairs = enumerate(zip(turns[::2], turns[1::2], strict=True))
        exchanges = (
            Exchange(f"{user.content}\n\n{user.context}".strip(), assistant.content, n in stopped)
            for n, (user, assistant) in pairs
        )
        return cls(system, tuple(exchanges))


def _with_suffix(path: Path) -> Path:
    return path if path.suffix or not path.name else path.with_name(f"{path.name}.json")


def _stopped_answers(path: Path) -> set[int]:
    """Return the numbers of the answers that were stopped; only files of ours state this."""
    try:
        messages = json.loads(read_text(path))["messages"]
        answers = [entry for entry in messages if entry["role"] == "assistant"]
        return {number for number, entry in enumerate(answers) if entry.get("stopped")}
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()
