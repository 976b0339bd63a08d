r"""The objects of OpenAI's API: completions, chats and their chunks, log-probabilities, usage.

A token that is not complete UTF-8 is written as `bytes:\xe2\x82`, a control token by its name.
"""

import codecs
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from gnano.infer.request import FinishReason
from gnano.infer.sampling import TokenLogprob
from gnano.tokenizer.bpe import Tokenizer
from gnano.utils.files import dump_json

DONE_EVENT = b"data: [DONE]\n\n"
WAITING_COMMENT = b": waiting\n\n"  # keeps proxies from closing a stream without tokens


class TokenTexts:
    """The texts and bytes of a tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.names = {number: name for name, number in tokenizer.control_tokens.items()}

    def is_special(self, token: int) -> bool:
        """Return whether a token is a control token."""
        return token in self.names

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token's text; those of its name for a control token."""
        name = self.names.get(token)
        return self.tokenizer.id_bytes[token] if name is None else name.encode()

    def text_of(self, token: int) -> str:
        """Return a token's text."""
        content = self.bytes_of(token)
        try:
            return content.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


@dataclass
class Usage:
    """The tokens of a request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return OpenAI's object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass
class Choice:
    """A text that is generated: the parts that are sent, or collected until it is complete."""

    texts: TokenTexts
    index: int
    is_chat: bool
    num_top: int | None  # alternatives; None: no log-probabilities
    position: int = 0  # in the text, in characters, of the next token
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def to_json(
        self,
        text: str,
        logprobs: Sequence[TokenLogprob | None],
        ids: Sequence[int],
        finish_reason: FinishReason | None,
        is_chunk: bool,
    ) -> dict[str, Any]:
        """Return a part, or a complete choice; `ids` are those of the log-probabilities."""
        found: dict[str, Any] | None = None
        if self.num_top is not None and (logprobs or not is_chunk):
            found = (
                {"content": [self._chat_entry(one) for one in logprobs if one], "refusal": None}
                if self.is_chat
                else self._completion_logprobs(logprobs, ids)
            )
        content: dict[str, Any] = {"text": text}
        if self.is_chat and is_chunk:
            content = {"delta": {"content": text} if text or not finish_reason else {}}
        elif self.is_chat:
            content = {"message": {"role": "assistant", "content": text, "refusal": None}}
        # a full context is a limit of the length, too
        reason = "length" if finish_reason == "context" else finish_reason
        return {"index": self.index, **content, "logprobs": found, "finish_reason": reason}

    def _chat_entry(self, entry: TokenLogprob) -> dict[str, Any]:
        top = [self._chat_token(*pair) for pair in entry.top_logprobs]
        return {**self._chat_token(entry.token_id, entry.logprob), "top_logprobs": top}

    def _chat_token(self, token: int, logprob: float) -> dict[str, Any]:
        content = list(self.texts.bytes_of(token))
        return {"token": self.texts.text_of(token), "logprob": logprob, "bytes": content}

    def _completion_logprobs(
        self, logprobs: Sequence[TokenLogprob | None], ids: Sequence[int]
    ) -> dict[str, Any]:
        text_of = self.texts.text_of
        result: dict[str, Any] = {
            "tokens": [text_of(token) for token in ids],
            "token_logprobs": [entry and entry.logprob for entry in logprobs],
            "top_logprobs": [],
            "text_offset": [],
        }
        for token, entry in zip(ids, logprobs, strict=True):
            result["text_offset"].append(self.position)
            self.position += len(self.decoder.decode(self.texts.tokenizer.id_bytes[token]))
            top = None
            if entry is not None:
                pairs = (*entry.top_logprobs, (entry.token_id, entry.logprob))
                top = {text_of(other): logprob for other, logprob in pairs}
            result["top_logprobs"].append(top)
        return result


@dataclass
class ResponseObjects:
    """What all objects of one response have in common."""

    model: str
    fingerprint: str
    is_chat: bool
    include_usage: bool  # at the end of a stream
    id: str = field(init=False)
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.is_chat else 'cmpl'}-{uuid4().hex}"

    def complete(self, choices: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """Return the object of a response that is not streamed."""
        kind = "chat.completion" if self.is_chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": usage.to_json()}

    def chunk(self, choices: list[dict[str, Any]], usage: Usage | None = None) -> bytes:
        """Return an event of a stream; the one with the usage has no choice."""
        content = self._head("chat.completion.chunk" if self.is_chat else "text_completion")
        content["choices"] = choices
        if self.include_usage:
            content["usage"] = usage and usage.to_json()
        return format_event(content)

    def _head(self, kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**head, "system_fingerprint": self.fingerprint}


def format_event(content: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return b"data: " + dump_json(content, separators=(",", ":")).encode() + b"\n\n"


def mean_logprob(logprobs: Iterable[TokenLogprob | None]) -> float:
    """Return the mean log-probability of a text's tokens, by which `best_of` chooses."""
    values = [entry.logprob for entry in logprobs if entry is not None]
    return sum(values) / len(values) if values else 0.0
