"""Chat templates of other families: the Jinja template in a tokenizer's files, as ids with a mask.

    messages ──Jinja, sandboxed──▶ text ──control tokens, tokenizer──▶ ids, and which are learned

The ids are those of transformers' `apply_chat_template`, except that a control token which
somebody typed in a message stays plain text. Learned is what the model would write: the text inside
`{% generation %}` where the template marks it, and otherwise what an answer adds to the prompt
before it, up to the token that ends a text. A template that changes earlier messages when later
ones follow is refused, because no prompt of it is the beginning of the conversation.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from gnano.data.sft.conversations import Turn
from gnano.tokenizer.bpe import Tokenizer

# of the private use area: marks around generated text, and the first of those for typed controls
GENERATION_START, GENERATION_END = "\ue000", "\ue001"
FIRST_PLACEHOLDER = 0xF0000


class _GenerationBlock(Extension):
    """The tag {% generation %}: marks what it contains."""

    tags = {"generation"}  # noqa: RUF012 as in jinja2

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{GENERATION_START}{caller()}{GENERATION_END}"


@dataclass(frozen=True)
class JinjaTemplate:
    """A chat template of another family, with the tokens that it may name."""

    source: str
    special_tokens: tuple[tuple[str, str], ...] = ()  # bos_token, eos_token and others, by name

    @cached_property
    def _template(self) -> Any:
        def raise_exception(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
        )
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        environment.globals["raise_exception"] = raise_exception
        return environment.from_string(self.source)

    def encode(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> tuple[Any, NDArray[np.bool_]]:
        """Return the ids [n] of a conversation, up to its last answer, and which are learned.

        Raises ValueError for a conversation that the template refuses or cannot be learned from.
        """
        typed = _typed_controls(turns, tokenizer)
        text = self._render(turns, typed)
        if GENERATION_START in text:
            spans, text = _find_marks(text)
        else:
            spans = []
            for number, turn in enumerate(turns):
                if turn.role == "assistant":
                    prompt = self._render(turns[:number], typed, add_generation_prompt=True)
                    whole = self._render(turns[: number + 1], typed)
                    if not (text.startswith(prompt) and text.startswith(whole)):
                        raise ValueError(
                            "the chat template changes earlier messages when later ones follow, so "
                            "no prompt begins the conversation: name another (data.template)"
                        )
                    spans.append((len(prompt), len(whole)))
        ids, starts = _encode(text, typed, tokenizer)
        learned = np.zeros(len(ids), bool)
        for start, stop in spans:
            inside = np.flatnonzero((starts >= start) & (starts < stop))
            ends = inside[np.isin(ids[inside], tokenizer.eos_ids)]
            learned[inside if not len(ends) else inside[inside <= ends[0]]] = True
        last = int(np.flatnonzero(learned)[-1]) + 1 if learned.any() else len(ids)
        return ids[:last], learned[:last]

    def encode_prompt(self, turns: Sequence[Turn], tokenizer: Tokenizer) -> list[int]:
        """Return the ids before the next answer."""
        typed = _typed_controls(turns, tokenizer)
        text = self._render(turns, typed, add_generation_prompt=True)
        text = text.replace(GENERATION_START, "").replace(GENERATION_END, "")
        ids: list[int] = _encode(text, typed, tokenizer)[0].tolist()
        return ids

    def _render(
        self, turns: Sequence[Turn], typed: dict[str, str], add_generation_prompt: bool = False
    ) -> str:
        messages = []
        for turn in turns:
            content = f"{turn.content}\n\n{turn.context}" if turn.context else turn.content
            for control, placeholder in typed.items():
                content = content.replace(control, placeholder)
            messages.append({"role": turn.role, "content": content})
        values = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            text: str = self._template.render(values | dict(self.special_tokens))
        except (TemplateError, TypeError, KeyError, AttributeError) as error:
            reason = str(error).rstrip(".") or type(error).__name__
            raise ValueError(f"the chat template refuses this conversation: {reason}") from None
        return text


def _typed_controls(turns: Sequence[Turn], tokenizer: Tokenizer) -> dict[str, str]:
    """Return a placeholder of the same length for each control token in the messages' text."""
    controls = tokenizer.control_tokens
    texts = [text for turn in turns for text in (turn.content, turn.context)]
    found = [control for control in controls if any(control in text for text in texts)]
    found.sort(key=len, reverse=True)  # one may be a part of another
    return {control: chr(FIRST_PLACEHOLDER + n) * len(control) for n, control in enumerate(found)}


def _find_marks(text: str) -> tuple[list[tuple[int, int]], str]:
    """Return the marked spans, and the text without marks, in whose positions they are."""
    spans, clean = [], ""
    for part in text.split(GENERATION_START):
        body, end, rest = part.partition(GENERATION_END)
        if end:
            spans.append((len(clean), len(clean) + len(body)))
        clean += body + rest
    return spans, clean


def _encode(
    text: str, typed: dict[str, str], tokenizer: Tokenizer
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids of a rendered text, and where each starts in it; its control tokens count."""
    if not typed:
        return tokenizer.encode_with_controls(text)
    ids: list[NDArray[np.int64]] = []
    starts: list[NDArray[np.int64]] = []
    position = 0
    for part in tokenizer.split_at_controls(text):
        plain = part
        for control, placeholder in typed.items():
            plain = plain.replace(placeholder, control)
        found = tokenizer.encode_with_controls(plain, plain == part)
        ids.append(found[0])
        starts.append(found[1] + position)
        position += len(part)
    return np.concatenate(ids), np.concatenate(starts)
