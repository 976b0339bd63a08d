"""The settings of inference: how a model is loaded, and how the next token of a text is sampled.

They are the options of several commands; nothing here needs torch until a text is generated.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from gnano.utils.platform_support import THREAD_RANGE
from gnano.utils.validation import Range, check_field_ranges, check_number

if TYPE_CHECKING:
    import torch

InferenceDtype = Literal["auto", "fp32", "bf16", "fp16"]
Quantization = Literal["", "int8", "int4"]
MAX_COUNT = 2**31 - 1  # of tokens, token ids and alternatives
LOGIT_BIAS_RANGE = Range(-100, 100)


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """Where a model runs, and in which precision."""

    device: str = "auto"  # cpu, cuda, mps …; auto: a CUDA GPU if there is one
    # auto: bf16 on a GPU, and for a large model on a CPU with bf16 matrix products
    dtype: InferenceDtype = "auto"
    quant: Quantization = ""  # int8 or int4: bits per weight of the matrices, a little less exact
    compile: bool = False  # takes about ten seconds at the start, and makes each token faster
    threads: Annotated[int, THREAD_RANGE] = 0  # of a CPU; 0: one per core

    def __post_init__(self) -> None:
        check_field_ranges(self)


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is sampled."""

    # 0: always the most likely token; 1: the model's own probabilities
    temperature: Annotated[float, Range(0, 100)] = 0.8
    top_k: Annotated[int, Range(0, MAX_COUNT)] = 0  # only the k most likely tokens; 0: all
    # only the most likely tokens that together reach this probability
    top_p: Annotated[float, Range(0, 1, exclusive_minimum=True)] = 1.0
    # only tokens with at least this share of the highest probability; 0: all
    min_p: Annotated[float, Range(0, 1)] = 0.0
    # divides the logits of tokens in the text so far; 1: off
    repetition_penalty: Annotated[float, Range(0.01, 100)] = 1.0
    # subtracted from the logits of tokens in the output so far; 0: off
    presence_penalty: Annotated[float, Range(-2, 2)] = 0.0
    # the same, once per occurrence; 0: off
    frequency_penalty: Annotated[float, Range(-2, 2)] = 0.0
    # no sequence of this many tokens occurs twice; 0: off
    no_repeat_ngram_size: Annotated[int, Range(0, MAX_COUNT)] = 0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, added to its logit), each id once
    # the same seed and prompts give the same text; None: different each time
    seed: Annotated[int | None, Range(0, 2**63 - 1)] = None

    def __post_init__(self) -> None:
        check_field_ranges(self)
        for token, bias in self.logit_bias:
            check_number("a token of logit_bias", token, Range(0, MAX_COUNT))
            check_number(
                f"the logit_bias of token {token}", bias, LOGIT_BIAS_RANGE, is_integer=False
            )
        if len(dict(self.logit_bias)) < len(self.logit_bias):
            raise ValueError("logit_bias names a token twice; give each token id one bias.")

    @property
    def needs_history(self) -> bool:
        """Whether sampling depends on the text so far."""
        return bool(
            self.repetition_penalty != 1
            or self.presence_penalty
            or self.frequency_penalty
            or self.no_repeat_ngram_size
        )

    @property
    def truncates(self) -> bool:
        """Whether top-k, top-p or min-p may exclude tokens."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def make_generator(self) -> "torch.Generator":
        """Return a random generator for one text, independent of all others."""
        import torch

        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return generator

    def for_sample(self, index: int) -> "SamplingParams":
        """Return the settings of sample 0, 1, 2 … of a request; sample 0 has those of `self`."""
        if index == 0 or self.seed is None:
            return self
        import numpy as np

        derived = np.random.SeedSequence(self.seed, spawn_key=(index,))
        seed = int(derived.generate_state(1, np.uint64)[0]) >> 1
        return dataclasses.replace(self, seed=seed)
