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

from gnano.checkpoint.format import find_checkpoint
from gnano.config.eval_config import AddBos
from gnano.config.inference_config import LoadConfig
from gnano.config.model_config import ModelConfig
from gnano.evals.eval_tasks import EvalItem
from gnano.evals.loglikelihood import (
    GPU_LOGITS_BYTES,
    ChoiceScorer,
    EncodedChoice,
    EncodedItem,
    GPTScorer,
    TokenIds,
    choice_nll,
    pad_rows,
)
from gnano.infer.engine import Engine
from gnano.model.devices import resolve_device
from gnano.model.flops import num_parameters as model_parameters
from gnano.model.hf_io import WEIGHTS_NAME, read_json_object
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.lineage import training_stages
from gnano.utils.platform_support import set_num_threads
from gnano.utils.validation import ConflictingValuesError

DEFAULT_LOADING = LoadConfig()
# as others name them
TORCH_DTYPE_NAMES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class RequestEncoder:
    """Turns items into token ids: `start` begins each text, cut to a model's `context`.

    `otherwise` begins a text that would have nothing to predict it from, and each of several
    documents in a row.
    """

    def __init__(
        self,
        encode: Callable[[str], list[int]],
        bos: TokenIds,
        document_bos: TokenIds,
        block_size: int,
    ) -> None:
        self.encode, self.bos, self.document_bos = encode, bos, document_bos
        self.block_size = block_size
        # the answers of an item have one context, most often
        self.encode_context = lru_cache(maxsize=4)(encode)

    @classmethod
    def for_gpt(cls, tokenizer: Tokenizer, block_size: int, add_bos: bool = True) -> Self:
        """Return that of our models, whose texts begin with end-of-text, as in training."""
        end = (tokenizer.end_of_text_id,)
        return cls(tokenizer.encode, end if add_bos else (), end, block_size)

    def encode_items(self, items: Sequence[EvalItem]) -> list[EncodedItem]:
        return [
            EncodedItem(tuple(self.encode_choice(*pair) for pair in item.choices)) for item in items
        ]

    def encode_choice(self, context: str, continuation: str) -> EncodedChoice:
        # a blank at the end of a context belongs to the word that follows it
        bare = context.rstrip()
        before = self.encode_context(bare)
        whole = self.encode(bare + context[len(bare) :] + continuation)
        # where a token spans the border, the context keeps its own ids and the answer the rest
        scored = whole[len(before) :] or self.encode(continuation)
        start = self.bos if self.bos or before else self.document_bos
        ids = (*start, *before, *scored)[-(self.block_size + 1) :]
        return EncodedChoice(ids, min(len(scored), len(ids) - 1))


@dataclass(frozen=True, kw_only=True)
class EvalModel:
    folder: Path
    name: str
    parameters: int
    scorer: ChoiceScorer
    encoder: RequestEncoder
    tokenizer: Tokenizer | None = None  # None: a foreign one
    training_tokens: int | None = None  # that it was trained on, where its run records it
    loading: LoadConfig


def load_eval_model(
    path: Path, loading: LoadConfig = DEFAULT_LOADING, add_bos: AddBos = "auto"
) -> EvalModel:
    """Open the model of a run, a checkpoint or a Hugging Face folder.

    `start` says whether texts begin with end-of-text: auto is so with our models, as in training,
    and with others where their own tokenizer puts it there. Raises ValueError or OSError, in a
    sentence, where there is no model that can be evaluated.
    """
    folder = find_checkpoint(path)
    set_num_threads(loading.threads)
    if loading.compile:
        raise ValueError("--compile makes each token that is written sooner; here none is written.")
    if is_gnano_model(folder):
        return _load_gnano_model(path, folder, loading, add_bos)
    if loading.quant:
        raise ValueError(f"{folder} is not one of our models: --quant is for those.")
    return _load_transformers_model(path, folder, loading, add_bos)


def is_gnano_model(folder: Path) -> bool:
    """Tell whether our engine can read the folder as it is."""
    try:
        ModelConfig.from_hf(read_json_object(folder / "config.json"))
        Tokenizer.load(folder)
    except ConflictingValuesError:  # which reader should be believed?
        raise
    except (ValueError, OSError):
        return False
    return (folder / WEIGHTS_NAME).is_file()


def check_transformers_installed(folder: Path) -> None:
    """Raise ValueError for a model that only transformers opens, where that is not installed."""
    if not is_gnano_model(folder) and find_spec("transformers") is None:
        raise ValueError(
            f"{folder} is not one of our models, and others are opened by transformers: "
            f"pip install 'auto-g-nano[eval]'."
        )


def training_tokens(folder: Path) -> int | None:
    """Return the tokens of pretraining and all that followed; None where no run records them."""
    found = training_stages(folder)
    return sum(one.step * one.recipe.train.tokens_per_step for one in found) if found else None


def _load_gnano_model(path: Path, folder: Path, loading: LoadConfig, add_bos: AddBos) -> EvalModel:
    engine = Engine.load(folder, **asdict(loading))
    engine.prepare_for_batching()
    model, tokenizer = engine.model, engine.tokenizer
    return EvalModel(
        folder=folder,
        name=_display_name(path, folder),
        parameters=model_parameters(model.config),
        scorer=GPTScorer(model),
        encoder=RequestEncoder.for_gpt(tokenizer, model.config.block_size, add_bos != "no"),
        tokenizer=tokenizer,
        training_tokens=training_tokens(folder),
        loading=loading,
    )


def _load_transformers_model(
    path: Path, folder: Path, loading: LoadConfig, add_bos: AddBos
) -> EvalModel:
    check_transformers_installed(folder)
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=TORCH_DTYPE_NAMES[loading.dtype], local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        why = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder} cannot be opened by transformers either: {why}") from None
    encode = partial(tokenizer.encode, add_special_tokens=False)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if first is None:
        raise ValueError(f"The tokenizer of {folder} has neither a first nor a last token.")
    puts_first = tokenizer.encode("a")[:1] == [first]
    before = (first,) if add_bos == "yes" or (add_bos == "auto" and puts_first) else ()
    reader = TransformersScorer(model.eval().to(resolve_device(loading.device)))
    return EvalModel(
        folder=folder,
        name=_display_name(path, folder),
        parameters=model.num_parameters(),
        scorer=reader,
        encoder=RequestEncoder(encode, before, (first,), reader.block_size),
        loading=loading,
    )


def _display_name(path: Path, folder: Path) -> str:
    """Return the user's name for it, or for a run its name with the step of its checkpoint."""
    if folder.parent.name != "checkpoints":
        return path.name or str(path)
    return f"{folder.parent.parent.name}, step {int(folder.name.removeprefix('step-')):,}"


class TransformersScorer:
    """Computes each option in full: slow, and right for every model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def block_size(self) -> int:
        config = self.model.config
        found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_ctx", None)
        return int(found or 2_048)

    def set_prefix(self, prefix: TokenIds) -> None:
        """Keep nothing."""

    @torch.no_grad()
    def score_choices(self, items: Sequence[EncodedItem]) -> Tensor:
        options = [option for question in items for option in question.choices]
        longest = max(len(option.ids) for option in options)
        rows = max(1, GPU_LOGITS_BYTES // (4 * self.model.config.vocab_size * longest))
        parts = [self._compute_nll(options[at : at + rows]) for at in range(0, len(options), rows)]
        return torch.cat(parts)

    def _compute_nll(self, choices: Sequence[EncodedChoice]) -> Tensor:
        width = max(len(option.ids) for option in choices) - 1
        ids_BT = pad_rows([option.ids[:-1] for option in choices], width, self.model.device)
        logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        ends = [row * width + len(option.ids) - 1 for row, option in enumerate(choices)]
        pairs = zip(ends, choices, strict=True)
        places = [place for end, one in pairs for place in range(end - one.num_scored, end)]
        logits_NV = logits_BTV.flatten(0, 1)
        return choice_nll(Tensor.float, logits_NV.shape[-1], choices, logits_NV, places)
