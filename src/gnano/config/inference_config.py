"""The settings of using a trained model: loading, sampling, evaluation and export.

They are the options of several commands; nothing here needs torch until a text is generated.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from gnano.utils.files import expand_path_fields
from gnano.utils.validation import THREAD_RANGE, Range, check_field_ranges, check_number

InferenceDtype = Literal["auto", "fp32", "bf16", "fp16"]
Quantization = Literal["", "int8", "int4"]
MAX_COUNT = 2**31 - 1  # of tokens, token ids and alternatives
ALL_TASKS = "all"
AddBos = Literal["auto", "yes", "no"]
ExportFormat = Literal["pt", "safetensors", "folder", "onnx", "gguf"]
ExportDtype = Literal["auto", "fp32", "bf16", "fp16", "q8_0", "q4_0", "int8", "int4"]

# the first of a format is its default
FORMAT_DTYPES: dict[ExportFormat, tuple[ExportDtype, ...]] = {
    "pt": ("fp32", "bf16"),
    "safetensors": ("bf16", "fp32", "fp16"),
    "folder": ("bf16", "fp32", "fp16"),
    "onnx": ("fp32", "fp16", "int8", "int4"),
    "gguf": ("bf16", "fp32", "fp16", "q8_0", "q4_0"),
}


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
    # the same seed and prompt give the same text; None: different each time
    seed: Annotated[int | None, Range(0, 2**63 - 1)] = None

    def __post_init__(self) -> None:
        check_field_ranges(self)
        for token, bias in self.logit_bias:
            check_number("a token of logit_bias", token, Range(0, MAX_COUNT))
            key = f"the logit_bias of token {token}"
            check_number(key, bias, Range(-100, 100), is_integer=False)
        if len(dict(self.logit_bias)) < len(self.logit_bias):
            raise ValueError("logit_bias names a token twice; give each token id one bias.")

    @property
    def truncates(self) -> bool:
        """Whether top-k, top-p or min-p may exclude tokens."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def for_sample(self, index: int) -> "SamplingParams":
        """Return the settings of sample 0, 1, 2 … of a request; sample 0 has those of `self`."""
        if index == 0 or self.seed is None:
            return self
        import numpy as np

        derived = np.random.SeedSequence(self.seed, spawn_key=(index,))
        seed = int(derived.generate_state(1, np.uint64)[0]) >> 1
        return replace(self, seed=seed)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Tasks and texts to evaluate, and how."""

    tasks: tuple[str, ...] = ()  # names, all or none; default: all, or those of files
    files: tuple[str, ...] = ()  # items that replace the Hub's: TASK….jsonl, or TASK=PATH
    limit: Annotated[int, Range(0)] = 0  # items per task, spread over all of it; 0: all
    shots: Annotated[int, Range(0, 1_000)] = 0  # solved examples before each item
    data: Path | None = None  # data folder whose held-out text is evaluated; default: the run's
    text: tuple[Path, ...] = ()  # text files to evaluate as well
    # most tokens of each source's held-out text; 0: all
    heldout_tokens: Annotated[int, Range(0)] = 1_000_000
    # search the data's training shards for the items (runs of 13 words)
    check_contamination: bool = False
    # texts computed in one batch; more are faster on a GPU
    batch_size: Annotated[int, Range(1, 65_536)] = 32
    add_bos: AddBos = "auto"  # start texts with end-of-text; auto: as the model was trained
    cache_dir: Path = Path("data/hub")  # folder for the Hub's files

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks, with the default filled in."""
        return self.tasks or (() if self.files else (ALL_TASKS,))

    def __post_init__(self) -> None:
        expand_path_fields(self, ("files",))
        check_field_ranges(self)


def resolve_export_dtype(export_format: ExportFormat, dtype: ExportDtype) -> ExportDtype:
    """Return the dtype to write; raise ValueError for one that the format does not support."""
    supported = FORMAT_DTYPES[export_format]
    if dtype == "auto":
        return supported[0]
    if dtype not in supported:
        raise ValueError(
            f"{export_format} is written as {', '.join(supported)}, not as {dtype} (--dtype)."
        )
    return dtype
