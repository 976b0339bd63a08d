"""Settings of a conversation, which `/set` changes: sampling, and the length of answers."""

from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.utils.validation import Range, check_field_ranges


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    sampling: SamplingParams = field(default_factory=SamplingParams)
    tokens: Annotated[int, Range(1, MAX_COUNT)] = 256  # of an answer, at most

    def __post_init__(self) -> None:
        check_field_ranges(self)

    def with_value(self, name: str, value: str) -> "ChatSettings":
        """Return the settings with this one as a person typed it.

        Raises ValueError, in a sentence, where the text is no value of it.

        `top-k` is `top_k`, and `none` is no value where there may be none.
        """
        name = name.replace("-", "_")
        values = self.as_dict()
        if name not in values:
            raise ValueError(f"There is no setting {name!r}; there are {', '.join(values)}.")
        kind = get_type_hints(ChatSettings if name == "tokens" else SamplingParams)[name]
        parsed = _parse_value(name, value, kind)
        if name == "tokens":
            return replace(self, tokens=parsed)
        return replace(self, sampling=replace(self.sampling, **{name: parsed}))

    def as_dict(self) -> dict[str, Any]:
        """Return all that can be set, by name."""
        return {**vars(self.sampling), "tokens": self.tokens}

    def format_value(self, name: str) -> str:
        """Return the value of a setting as `changed` takes it."""
        value = self.as_dict()[name.replace("-", "_")]
        if isinstance(value, tuple):
            return ",".join(f"{token}:{bias:g}" for token, bias in value) or "none"
        return "none" if value is None else str(value)


def _parse_value(name: str, text: str, field_type: Any) -> Any:
    none = text.lower() == "none"
    try:
        if get_origin(field_type) is tuple:  # of pairs
            what = "pairs of a token and a number, as 13:-5,42:1.5"
            pairs = [] if none else [pair.split(":") for pair in text.split(",")]
            return tuple((int(token), float(number)) for token, number in pairs)
        if get_origin(field_type) is UnionType:  # int | None
            if none:
                return None
            field_type = get_args(field_type)[0]
        what = "a whole number" if field_type is int else "a number"
        return field_type(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; it must be {what}.") from None
