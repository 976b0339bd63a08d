"""Where and in how many bits are a model's weights kept while it writes? A command's options."""

from dataclasses import dataclass
from typing import Annotated, Literal

from gnano.utils.openmp import THREAD_RANGE
from gnano.utils.ranges import check_field_ranges

InferenceDtype = Literal["auto", "fp32", "bf16", "fp16"]
Quantization = Literal["", "int8", "int4"]


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    device: str = "auto"  # cpu, cuda, mps …; auto is a GPU with CUDA if there is one
    dtype: InferenceDtype = (
        "auto"  # auto: bf16 on a GPU, and for a large model on a CPU that multiplies it
    )
    quant: Quantization = ""  # int8 or int4: the matrices in so many bits, a little less exact
    compile: bool = False  # takes some ten seconds at the start, and saves some of each token
    threads: Annotated[int, THREAD_RANGE] = 0  # of a CPU; 0: one per core

    def __post_init__(self) -> None:
        check_field_ranges(self)
