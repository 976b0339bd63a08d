"""A request for a text, and the state of its sequence while the text is generated."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch

from gnano.config.inference_config import MAX_COUNT, SamplingParams
from gnano.infer.sampling import TokenHistory, TokenLogprob
from gnano.tokenizer.bpe import IncrementalDetokenizer
from gnano.utils.validation import Range, check_field_ranges

# end-of-text or a stop string; max_new_tokens reached; context full; logits that are not finite
FinishReason = Literal["stop", "length", "context", "error"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt and how to continue it."""

    prompt_ids: tuple[int, ...]
    max_new_tokens: Annotated[int, Range(0, MAX_COUNT)] = 128
    sampling: SamplingParams = field(default_factory=SamplingParams)
    # alternatives returned with each token's log-probability; None: no log-probabilities
    logprobs: Annotated[int | None, Range(0, MAX_COUNT)] = None
    stop: Sequence[str] = ()  # strings that end the text and are not part of it
    context_shift: bool = False  # drop the older half of a full context and continue
    prompt_logprobs: bool = False  # of the prompt's tokens too, with as many alternatives

    def __post_init__(self) -> None:
        check_field_ranges(self)
        object.__setattr__(self, "prompt_ids", tuple(self.prompt_ids))  # a list is accepted too

    @property
    def is_repeatable(self) -> bool:
        """Whether the same request must give the same text again."""
        return self.sampling.seed is not None or self.sampling.temperature == 0

    @property
    def needs_host(self) -> bool:
        """Whether the host must see the logits, or the last token, before the next step."""
        return bool(self.sampling.logit_bias) or self.logprobs is not None or self.context_shift


@dataclass(eq=False)
class SequenceState:
    """A request in progress and its output so far."""

    request: Request
    generator: torch.Generator
    history: TokenHistory | None  # for penalties
    detokenizer: IncrementalDetokenizer
    text: str = ""  # what no later token can change
    # without end-of-text, but including those of a stop string
    output_ids: list[int] = field(default_factory=list)
    # if requested: of the tokens whose text is complete in `text`
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)  # None for the first
    cached_tokens: int = 0  # of the prompt, from the prefix cache
    finish_reason: FinishReason | None = None  # None while in progress
    error: str = ""  # one sentence, if the finish reason is "error"
    # of tokens whose text is not final yet, with the length of the text that includes it
    held_logprobs: deque[tuple[int, TokenLogprob]] = field(default_factory=deque)

    def add_text(self, data: bytes, logprob: TokenLogprob | None = None) -> None:
        """Add the bytes of a token; all text is final once there is a finish reason."""
        is_end = self.finish_reason is not None
        self.text += self.detokenizer.push(data, is_end)
        if self.detokenizer.stopped:
            self.finish_reason = "stop"
        elif logprob:
            self.held_logprobs.append((self.detokenizer.text_length, logprob))
        while self.held_logprobs and self.held_logprobs[0][0] <= len(self.text):
            self.logprobs.append(self.held_logprobs.popleft()[1])
