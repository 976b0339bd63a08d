"""Settings of a conversation, which `/set` changes: sampling, and the length of answers."""

from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from gnano.infer.sampling import MOST, Sampling
from gnano.utils.ranges import Range, check_ranges


@dataclass(frozen=True, kw_only=True)
class Settings:
    sampling: Sampling = field(default_factory=Sampling)
    tokens: Annotated[int, Range(1, MOST)] = 256  # of an answer, at most

    def __post_init__(self) -> None:
        check_ranges(self)

    def changed(self, name: str, text: str) -> "Settings":
        """Return the settings with this one as a person typed it.

        Raises ValueError, in a sentence, where the text is no value of it.

        `top-k` is `top_k`, and `none` is no value where there may be none.
        """
        name = name.replace("-", "_")
        values = self.values()
        if name not in values:
            raise ValueError(f"There is no setting {name!r}; there are {', '.join(values)}.")
        kind = get_type_hints(Settings if name == "tokens" else Sampling)[name]
        value = _parsed(name, text, kind)
        if name == "tokens":
            return replace(self, tokens=value)
        return replace(self, sampling=replace(self.sampling, **{name: value}))

    def values(self) -> dict[str, Any]:
        """Return all that can be set, by name."""
        return {**vars(self.sampling), "tokens": self.tokens}

    def shown(self, name: str) -> str:
        """Return the value of a setting as `changed` takes it."""
        value = self.values()[name.replace("-", "_")]
        if isinstance(value, tuple):
            return ",".join(f"{token}:{bias:g}" for token, bias in value) or "none"
        return "none" if value is None else str(value)


def _parsed(name: str, text: str, kind: Any) -> Any:
    none = text.lower() == "none"
    try:
        if get_origin(kind) is tuple:  # of pairs
            what = "pairs of a token and a number, as 13:-5,42:1.5"
            pairs = [] if none else [pair.split(":") for pair in text.split(",")]
            return tuple((int(token), float(number)) for token, number in pairs)
        if get_origin(kind) is UnionType:  # int | None
            if none:
                return None
            kind = get_args(kind)[0]
        what = "a whole number" if kind is int else "a number"
        return kind(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; it must be {what}.") from None
