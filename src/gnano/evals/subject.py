"""The model under evaluation: one of ours, or any causal model that transformers opens.

    a run, a checkpoint, a Llama folder as ours ──▶ GPTReader
    any other Hugging Face folder ───────────────▶ TransformersReader

Items become token ids as lm-evaluation-harness makes them:

    context + answer ──▶ ids of the whole; those after the context's own ids are scored

A text longer than the model's context loses its beginning. A document begins with end-of-text, as
in training, unless that is switched off.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from gnano.evals.asked import Start
from gnano.evals.gathering import Item
from gnano.evals.likelihood import (
    GPU_LOGITS,
    GPTReader,
    Ids,
    Option,
    Question,
    Reader,
    option_nats,
    padded,
)
from gnano.infer.engine import Engine
from gnano.infer.loading import Loading
from gnano.model.arithmetic import num_parameters as model_parameters
from gnano.model.config import ModelConfig
from gnano.model.devices import device_called
from gnano.model.folder import WEIGHTS, read_json
from gnano.report.lineage import stages
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.saving.folders import find_checkpoint
from gnano.utils.agreement import DisagreementError
from gnano.utils.openmp import use_threads

DEFAULT = Loading()
# as others name them
DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Wording:
    """Turns items into token ids: `start` begins each text, cut to a model's `context`.

    `otherwise` begins a text that would have nothing to predict it from, and each of several
    documents in a row.
    """

    def __init__(
        self, encode: Callable[[str], list[int]], start: Ids, otherwise: Ids, context: int
    ) -> None:
        self.encode, self.start, self.otherwise = encode, start, otherwise
        self.context = context
        # the answers of an item have one context, most often
        self.encode_context = lru_cache(maxsize=4)(encode)

    @classmethod
    def ours(cls, tokenizer: Tokenizer, context: int, start: bool = True) -> Self:
        """Return that of our models, whose texts begin with end-of-text, as in training."""
        end = (tokenizer.end_of_text,)
        return cls(tokenizer.encode, end if start else (), end, context)

    def questions(self, items: Sequence[Item]) -> list[Question]:
        return [Question(tuple(self.option(*pair) for pair in item.options)) for item in items]

    def option(self, context: str, continuation: str) -> Option:
        # a blank at the end of a context belongs to the word that follows it
        bare = context.rstrip()
        before = self.encode_context(bare)
        whole = self.encode(bare + context[len(bare) :] + continuation)
        # where a token spans the border, the context keeps its own ids and the answer the rest
        scored = whole[len(before) :] or self.encode(continuation)
        start = self.start if self.start or before else self.otherwise
        ids = (*start, *before, *scored)[-(self.context + 1) :]
        return Option(ids, min(len(scored), len(ids) - 1))


@dataclass(frozen=True, kw_only=True)
class Subject:
    folder: Path
    name: str
    parameters: int
    reader: Reader
    wording: Wording
    tokenizer: Tokenizer | None = None  # None: a foreign one
    tokens: int | None = None  # that it was trained on, where its run records it
    loading: Loading


def open_subject(path: Path, loading: Loading = DEFAULT, start: Start = "auto") -> Subject:
    """Open the model of a run, a checkpoint or a Hugging Face folder.

    `start` says whether texts begin with end-of-text: auto is so with our models, as in training,
    and with others where their own tokenizer puts it there. Raises ValueError or OSError, in a
    sentence, where there is no model that can be evaluated.
    """
    folder = find_checkpoint(path)
    use_threads(loading.threads)
    if loading.compile:
        raise ValueError("--compile makes each token that is written sooner; here none is written.")
    if is_ours(folder):
        return _open_ours(path, folder, loading, start)
    if loading.quant:
        raise ValueError(f"{folder} is not one of our models: --quant is for those.")
    return _open_foreign(path, folder, loading, start)


def is_ours(folder: Path) -> bool:
    """Tell whether our engine can read the folder as it is."""
    try:
        ModelConfig.from_hf(read_json(folder / "config.json"))
        Tokenizer.load(folder)
    except DisagreementError:  # which reader should be believed?
        raise
    except (ValueError, OSError):
        return False
    return (folder / WEIGHTS).is_file()


def check_packages(folder: Path) -> None:
    """Raise ValueError for a model that only transformers opens, where that is not installed."""
    if not is_ours(folder) and find_spec("transformers") is None:
        raise ValueError(
            f"{folder} is not one of our models, and others are opened by transformers: "
            f"pip install 'auto-g-nano[eval]'."
        )


def trained_on(folder: Path) -> int | None:
    """Return the tokens of pretraining and all that followed; None where no run records them."""
    found = stages(folder)
    return sum(one.step * one.recipe.train.tokens_per_step for one in found) if found else None


def _open_ours(path: Path, folder: Path, loading: Loading, start: Start) -> Subject:
    engine = Engine.load(folder, **asdict(loading))
    engine.expect_several()
    model, tokenizer = engine.model, engine.tokenizer
    return Subject(
        folder=folder,
        name=_display_name(path, folder),
        parameters=model_parameters(model.config),
        reader=GPTReader(model),
        wording=Wording.ours(tokenizer, model.config.block_size, start != "no"),
        tokenizer=tokenizer,
        tokens=trained_on(folder),
        loading=loading,
    )


def _open_foreign(path: Path, folder: Path, loading: Loading, start: Start) -> Subject:
    check_packages(folder)
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=DTYPES[loading.dtype], local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        why = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder} cannot be opened by transformers either: {why}") from None
    encode = partial(tokenizer.encode, add_special_tokens=False)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise ValueError(f"The tokenizer of {folder} has neither a first nor a last token.")
    puts_first = tokenizer.encode("a")[:1] == [first]
    before = (first,) if start == "yes" or (start == "auto" and puts_first) else ()
    reader = TransformersReader(model.eval().to(device_called(loading.device)))
    return Subject(
        folder=folder,
        name=_display_name(path, folder),
        parameters=model.num_parameters(),
        reader=reader,
        wording=Wording(encode, before, (first,), reader.context),
        loading=loading,
    )


def _display_name(path: Path, folder: Path) -> str:
    """Return the user's name for it, or for a run its name with the step of its checkpoint."""
    if folder.parent.name != "checkpoints":
        return path.name or str(path)
    return f"{folder.parent.parent.name}, step {int(folder.name.removeprefix('step-')):,}"


class TransformersReader:
    """Computes each option in full: slow, and right for every model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def context(self) -> int:
        config = self.model.config
        found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_ctx", None)
        return int(found or 2_048)

    def begin(self, head: Ids) -> None:
        """Keep nothing."""

    @torch.no_grad()
    def score_options(self, questions: Sequence[Question]) -> Tensor:
        options = [option for question in questions for option in question.options]
        longest = max(len(option.ids) for option in options)
        rows = max(1, GPU_LOGITS // (4 * self.model.config.vocab_size * longest))
        parts = [self._score(options[at : at + rows]) for at in range(0, len(options), rows)]
        return torch.cat(parts)

    def _score(self, options: Sequence[Option]) -> Tensor:
        width = max(len(option.ids) for option in options) - 1
        ids_BT = padded([option.ids[:-1] for option in options], width, self.model.device)
        logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        ends = [row * width + len(option.ids) - 1 for row, option in enumerate(options)]
        pairs = zip(ends, options, strict=True)
        places = [place for end, one in pairs for place in range(end - one.scored, end)]
        logits_NV = logits_BTV.flatten(0, 1)
        return option_nats(Tensor.float, logits_NV.shape[-1], options, logits_NV, places)
