"""Parses the JSON of a generation request; an error names the field that is wrong.

The tables of fields are also what `/openapi.json` documents. Fields that are not in a table or
parsed below, such as `user` and `metadata`, have no effect.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.data.sft.conversations import Turn, parse_prompt_messages
from gnano.serve.api_errors import ApiError
from gnano.utils.validation import Range, check_number

MAX_CHOICES = 16  # of one prompt
MAX_STOP_STRINGS = 4
MAX_PROMPTS = 1_024  # of one request; the queue limits them further


class Field(NamedTuple):
    """A number or flag of a request; null is the default."""

    kind: Literal["integer", "number", "boolean"]
    default: Any
    allowed: Range
    help: str


ANY, COUNT = Range(), Range(0, MAX_COUNT)
SAMPLING_FIELDS = {
    "temperature": Field("number", 1.0, Range(0, 2), "0 is the most likely token"),
    "top_p": Field("number", 1.0, Range(0, 1), "share of probability that is sampled from"),
    "top_k": Field("integer", 0, COUNT, "only the k most likely tokens; 0 is all"),
    "min_p": Field("number", 0.0, Range(0, 1), "least share of the highest probability"),
    "repetition_penalty": Field("number", 1.0, Range(0.01, 100), "divides logits of seen tokens"),
    "presence_penalty": Field("number", 0.0, Range(-2, 2), "subtracted from generated tokens"),
    "frequency_penalty": Field("number", 0.0, Range(-2, 2), "the same, once per occurrence"),
    "seed": Field("integer", None, Range(-(2**63), 2**63 - 1), "the same seed, the same text"),
}
SHARED_FIELDS = SAMPLING_FIELDS | {
    "n": Field("integer", 1, Range(1, MAX_CHOICES), "choices of each prompt"),
    "stream": Field("boolean", False, ANY, "send the text as it is generated"),
}
COMPLETION_FIELDS = SHARED_FIELDS | {
    "max_tokens": Field("integer", 16, Range(0), "most tokens to generate"),
    "logprobs": Field("integer", None, Range(0, 10), "likeliest tokens returned with each token"),
    "echo": Field("boolean", False, ANY, "return the prompt before the text"),
    "best_of": Field("integer", None, Range(1, MAX_CHOICES), "texts of which the n likeliest stay"),
}
CHAT_FIELDS = SHARED_FIELDS | {
    "max_tokens": Field("integer", None, Range(1), "most tokens of the answer"),
    "max_completion_tokens": Field("integer", None, Range(1), "the same; it wins over max_tokens"),
    "logprobs": Field("boolean", False, ANY, "return log-probabilities"),
    "top_logprobs": Field("integer", None, Range(0, 20), "likeliest tokens at each position"),
}
# what would change the meaning of an answer, and is not supported unless it has such a value
UNSUPPORTED_FIELDS: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "suffix": (None, ""),
}


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A request for completions or for the answer of a chat."""

    model: str  # "": the first one that is served
    prompts: tuple[str | tuple[int, ...], ...] = ()  # of completions
    turns: tuple[Turn, ...] = ()  # of a chat
    max_tokens: int
    sampling: SamplingParams
    n: int
    best_of: int  # at least n
    stop: tuple[str, ...]
    logprobs: int | None  # alternatives; None: no log-probabilities
    echo: bool = False
    stream: bool
    include_usage: bool

    @property
    def is_chat(self) -> bool:
        """Whether it is a chat."""
        return bool(self.turns)

    @property
    def prompt_field(self) -> str:
        """The field that holds the prompt."""
        return "messages" if self.is_chat else "prompt"


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request's body."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(f"The body is not JSON: {reason}.") from None
    if not isinstance(value, dict):
        raise ApiError("The body is not a JSON object; send an object with the request's fields.")
    return value


def parse_completion(body: Mapping[str, Any]) -> GenerationRequest:
    """Parse a request of `/v1/completions`."""
    values = _parse_fields(body, COMPLETION_FIELDS)
    best_of = values["best_of"] or values["n"]
    if best_of < values["n"]:
        raise ApiError(f"best_of is {best_of}, less than n, which is {values['n']}.", "best_of")
    if values["stream"] and best_of > values["n"]:
        raise ApiError("best_of cannot be streamed; leave it out, or stream.", "best_of")
    return GenerationRequest(
        prompts=_parse_prompts(body.get("prompt")),
        max_tokens=min(values["max_tokens"], MAX_COUNT),
        best_of=best_of,
        logprobs=values["logprobs"],
        echo=values["echo"],
        **_shared_values(body, values),
    )


def parse_chat(body: Mapping[str, Any]) -> GenerationRequest:
    """Parse a request of `/v1/chat/completions`."""
    values = _parse_fields(body, CHAT_FIELDS)
    if values["top_logprobs"] is not None and not values["logprobs"]:
        raise ApiError("top_logprobs needs logprobs: true.", "top_logprobs")
    max_tokens = values["max_completion_tokens"] or values["max_tokens"] or MAX_COUNT
    return GenerationRequest(
        turns=parse_turns(body),
        max_tokens=min(max_tokens, MAX_COUNT),
        best_of=values["n"],
        logprobs=(values["top_logprobs"] or 0) if values["logprobs"] else None,
        **_shared_values(body, values),
    )


def parse_turns(body: Mapping[str, Any]) -> tuple[Turn, ...]:
    """Return the turns of `messages`, which end with the user's; system messages are joined."""
    messages = body.get("messages")
    try:
        if messages is None:
            raise ValueError("it is missing")
        return parse_prompt_messages(messages)
    except ValueError as error:
        raise ApiError(f"messages cannot be used: {error}.", "messages") from None


def parse_text(body: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """Return the text of a field; without a default it must be there."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise ApiError(f"{name} is {_describe(value)}; it must be text.", name)
    return value


def parse_ids(value: Any, name: str) -> tuple[int, ...]:
    """Return a list of token ids."""
    ids = tuple(map(_as_integer, value)) if isinstance(value, list) else ()
    if not isinstance(value, list) or any(type(token) is not int for token in ids):
        raise ApiError(f"{name} is not a list of token ids, which are whole numbers.", name)
    return ids


def _parse_fields(body: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    values = {}
    for name, field in fields.items():
        value = body.get(name)
        if value is None:
            value = field.default
        elif field.kind == "boolean":
            if not isinstance(value, bool):
                raise ApiError(f"{name} is {_describe(value)}; it must be true or false.", name)
        else:
            value = _as_integer(value) if field.kind == "integer" else value
            try:
                check_number(name, value, field.allowed, field.kind == "integer")
            except ValueError as error:
                raise ApiError(str(error), name) from None
        values[name] = value
    for name, allowed in UNSUPPORTED_FIELDS.items():
        if body.get(name) not in allowed:
            raise ApiError(
                f"{name} is not supported; leave it out.", name, code="unsupported_parameter"
            )
    return values


def _shared_values(body: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    options = body.get("stream_options")
    include_usage: Any = False
    if options is not None:
        if not values["stream"]:
            raise ApiError("stream_options needs stream: true.", "stream_options")
        include_usage = options.get("include_usage") if isinstance(options, dict) else "no object"
        if include_usage not in (None, True, False):
            message = "stream_options must be an object in which include_usage is true or false."
            raise ApiError(message, "stream_options")
    return {
        "model": parse_text(body, "model", ""),
        "sampling": _sampling_params(body, values),
        "n": values["n"],
        "stop": _parse_stop(body.get("stop")),
        "stream": values["stream"],
        "include_usage": bool(include_usage),
    }


def _sampling_params(body: Mapping[str, Any], values: Mapping[str, Any]) -> SamplingParams:
    settings = {name: values[name] for name in SAMPLING_FIELDS}
    if settings["top_p"] == 0:  # only the most likely token
        settings |= {"temperature": 0.0, "top_p": 1.0}
    if settings["seed"] is not None:
        settings["seed"] %= 2**63
    biases = body.get("logit_bias")
    if biases is None:
        biases = {}
    try:
        if not isinstance(biases, dict):
            raise ValueError("logit_bias is not an object of token ids and numbers.")
        if any(not token.isdecimal() or len(token) > 10 for token in biases):
            raise ValueError("A key of logit_bias is not a token id.")
        pairs = tuple((int(token), bias) for token, bias in biases.items())
        return SamplingParams(**settings, logit_bias=pairs)
    except ValueError as error:
        raise ApiError(str(error), "logit_bias") from None


def _parse_stop(value: Any) -> tuple[str, ...]:
    found = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
        raise ApiError("stop must be a text or a list of texts that are not empty.", "stop")
    if len(found) > MAX_STOP_STRINGS:
        raise ApiError(f"stop has {len(found)} texts; it may have {MAX_STOP_STRINGS}.", "stop")
    return tuple(found)


def _parse_prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """Return the prompts of a text, token ids, or a list of either."""
    if value is None:
        raise ApiError("prompt is missing; send a text, or a list of token ids.", "prompt")
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not value:
        raise ApiError("prompt must be a text, a list of token ids, or a list of these.", "prompt")
    if len(value) > MAX_PROMPTS and not isinstance(value[0], int):
        raise ApiError(f"prompt has {len(value)} texts; it may have {MAX_PROMPTS}.", "prompt")
    if isinstance(value[0], int):
        return (parse_ids(value, "prompt"),)
    return tuple(one if isinstance(one, str) else parse_ids(one, "prompt") for one in value)


def _as_integer(value: Any) -> Any:
    """Return 1 for 1.0, which is the same number in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _describe(value: Any) -> str:
    text = json.dumps(value)
    return "missing" if value is None else text if len(text) <= 40 else f"{text[:39]}…"
