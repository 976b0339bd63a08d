"""Where and in how many bits are a model's weights kept while it writes? A command's options.

How is the next token drawn? The settings of one text; `choosing` follows them.

Nothing here needs torch until a text begins, so that they are a command's options as well.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from gnano.utils.platform_support import THREAD_RANGE
from gnano.utils.validation import Range, check_field_ranges, check_number

InferenceDtype = Literal["auto", "fp32", "bf16", "fp16"]
Quantization = Literal["", "int8", "int4"]


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    device: str = "auto"  # cpu, cuda, mps …; auto is a GPU with CUDA if there is one
    # auto: bf16 on a GPU, and for a large model on a CPU that multiplies it
    dtype: InferenceDtype = "auto"
    quant: Quantization = ""  # int8 or int4: the matrices in so many bits, a little less exact
    compile: bool = False  # takes some ten seconds at the start, and saves some of each token
    threads: Annotated[int, THREAD_RANGE] = 0  # of a CPU; 0: one per core

    def __post_init__(self) -> None:
        check_field_ranges(self)


MAX_COUNT = 2**31 - 1  # of what is counted: tokens, ids, alternatives
LOGIT_BIAS_RANGE = Range(-100, 100)


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    # 0: always the likeliest; 1: as the model believes
    temperature: Annotated[float, Range(0, 100)] = 0.8
    top_k: Annotated[int, Range(0, MAX_COUNT)] = 0  # only the k likeliest; 0: all
    # only the likeliest that together reach this probability
    top_p: Annotated[float, Range(0, 1, exclusive_minimum=True)] = 1.0
    # only those at least this share as likely as the likeliest; 0: all
    min_p: Annotated[float, Range(0, 1)] = 0.0
    # divides the logits of what the text has; 1: off
    repetition_penalty: Annotated[float, Range(0.01, 100)] = 1.0
    # taken from the logits of what the answer has; 0: off
    presence_penalty: Annotated[float, Range(-2, 2)] = 0.0
    # the same, once for every time it has it; 0: off
    frequency_penalty: Annotated[float, Range(-2, 2)] = 0.0
    # no run of so many tokens comes twice; 0: off
    no_repeat_ngram_size: Annotated[int, Range(0, MAX_COUNT)] = 0
    logit_bias: tuple[tuple[int, float], ...] = ()  # (id, what its logit gains), ids differ
    # same seed and prompts, same text; None: new each time
    seed: Annotated[int | None, Range(0, 2**63 - 1)] = None

    def __post_init__(self) -> None:
        check_field_ranges(self)
        for token, bias in self.logit_bias:
            check_number("a token of logit_bias", token, Range(0, MAX_COUNT))
            check_number(
                f"the logit_bias of token {token}", bias, LOGIT_BIAS_RANGE, is_integer=False
            )
        if len(dict(self.logit_bias)) < len(self.logit_bias):
            raise ValueError("logit_bias names a token twice; give each id one bias.")

    @property
    def truncates(self) -> bool:
        """Whether top-k, top-p or min-p may rule tokens out."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def for_sample(self, index: int) -> "SamplingParams":
        """The settings of sample 0, 1, 2 … of one request; 0 is the request made alone."""
        if index == 0 or self.seed is None:
            return self
        import numpy as np

        derived = np.random.SeedSequence(self.seed, spawn_key=(index,))
        seed = int(derived.generate_state(1, np.uint64)[0]) >> 1
        return dataclasses.replace(self, seed=seed)
