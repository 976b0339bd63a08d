"""The model under evaluation: a gnano model, or any causal model that transformers can load.

    run, checkpoint, Llama folder in gnano's layout ──▶ GPTScorer
    any other Hugging Face folder ───────────────────▶ TransformersScorer

Items are encoded as in lm-evaluation-harness: context and answer are tokenized together, and the
ids after the context's own ids are scored. A text longer than the model's context loses its
beginning. A document begins with end-of-text, as in training, unless that is switched off.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import starmap
from pathlib import Path
from typing import Any, Self

import torch

from gnano.checkpoint.run_checkpoints import find_checkpoint, model_name
from gnano.config.hf_config import read_hf_config
from gnano.config.inference_config import AddBos, LoadConfig
from gnano.evals.eval_tasks import EvalItem
from gnano.evals.loglikelihood import (
    ChoiceScorer,
    EncodedChoice,
    EncodedItem,
    GPTScorer,
    TokenIds,
    TransformersScorer,
)
from gnano.infer.engine import Engine
from gnano.model.flops import num_parameters
from gnano.model.hf_io import find_weight_files, read_json_object
from gnano.tokenizer.bpe import Tokenizer
from gnano.tokenizer.hf_tokenizer import load_tokenizer
from gnano.train.lineage import training_stages
from gnano.utils.platform_support import require, resolve_device
from gnano.utils.validation import ConflictingValuesError

TORCH_DTYPE_NAMES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass
class RequestEncoder:
    """Encodes items as token ids of at most `block_size` inputs."""

    encode: Callable[[str], list[int]]
    bos: TokenIds  # begins every text
    document_bos: TokenIds  # begins each document in a row, and a text without any other token
    block_size: int

    def __post_init__(self) -> None:
        # the choices of an item usually share one context
        self.encode_context = lru_cache(maxsize=4)(self.encode)

    @classmethod
    def for_gpt(cls, tokenizer: Tokenizer, block_size: int, add_bos: AddBos = "auto") -> Self:
        """Return the encoder of a model whose texts begin as in its training, by default."""
        start = tokenizer.bos_ids or (tokenizer.end_of_text_id,)
        bos = {"auto": tokenizer.bos_ids, "yes": start, "no": ()}[add_bos]
        return cls(tokenizer.encode, bos, start, block_size)

    def encode_items(self, items: Sequence[EvalItem]) -> list[EncodedItem]:
        """Encode all choices of the items."""
        return [tuple(starmap(self.encode_choice, item.choices)) for item in items]

    def encode_choice(self, context: str, continuation: str) -> EncodedChoice:
        """Encode a context and its continuation, of which the continuation is scored."""
        # spaces at the end of a context belong to the word that follows
        stripped = context.rstrip()
        context_ids = self.encode_context(stripped)
        all_ids = self.encode(context + continuation)
        # where a token spans the border, the context keeps its own ids and the answer the rest
        scored = all_ids[len(context_ids) :] or self.encode(continuation)
        bos = self.bos if self.bos or context_ids else self.document_bos
        ids = (*bos, *context_ids, *scored)[-(self.block_size + 1) :]
        return EncodedChoice(ids, min(len(scored), len(ids) - 1))


@dataclass(frozen=True, kw_only=True)
class EvalModel:
    """A loaded model with its encoder and scorer."""

    folder: Path
    name: str
    parameters: int
    scorer: ChoiceScorer
    encoder: RequestEncoder
    tokenizer: Tokenizer | None = None  # None: not a gnano tokenizer
    training_tokens: int | None = None  # None: no run records them
    loading: LoadConfig


def load_eval_model(
    path: Path, loading: LoadConfig | None = None, add_bos: AddBos = "auto"
) -> EvalModel:
    """Load the model of a run, a checkpoint or a Hugging Face folder.

    `add_bos` sets whether texts begin with end-of-text; "auto" does so for gnano models, as in
    training, and for others if their own tokenizer adds it. Raises ValueError or OSError if there
    is no model that can be evaluated.
    """
    loading = loading or LoadConfig()
    folder = find_checkpoint(path)
    if loading.threads:  # 0 keeps PyTorch's default, one per core
        torch.set_num_threads(loading.threads)
    if loading.compile:
        raise ValueError(
            "--compile speeds up generating tokens, and an evaluation generates none; leave it out."
        )
    name = model_name(path) or str(path)
    if folder.parent.name == "checkpoints":
        name = f"{folder.parent.parent.name}, step {int(folder.name.removeprefix('step-')):,}"
    if not is_gnano_model(folder):
        if loading.quant:
            raise ValueError(f"{folder} is not a gnano model, and --quant supports only those.")
        return _load_transformers_model(folder, name, loading, add_bos)
    engine = Engine.load(folder, **asdict(loading))
    engine.prepare_for_batching()
    config = engine.model.config
    return EvalModel(
        folder=folder,
        name=name,
        parameters=num_parameters(config),
        scorer=GPTScorer(engine.model),
        encoder=RequestEncoder.for_gpt(engine.tokenizer, config.block_size, add_bos),
        tokenizer=engine.tokenizer,
        training_tokens=training_tokens(folder),
        loading=loading,
    )


def _load_transformers_model(
    folder: Path, name: str, loading: LoadConfig, add_bos: AddBos
) -> EvalModel:
    check_transformers_installed(folder)
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=TORCH_DTYPE_NAMES[loading.dtype], local_files_only=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder} cannot be loaded by transformers either: {reason}") from None
    encode = partial(tokenizer.encode, add_special_tokens=False)
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if bos is None:
        raise ValueError(f"The tokenizer of {folder} has neither a BOS nor an EOS token.")
    adds_bos = tokenizer.encode("a")[:1] == [bos]
    use_bos = add_bos == "yes" or (add_bos == "auto" and adds_bos)
    scorer = TransformersScorer(model.eval().to(resolve_device(loading.device)))
    return EvalModel(
        folder=folder,
        name=name,
        parameters=model.num_parameters(),
        scorer=scorer,
        encoder=RequestEncoder(encode, (bos,) if use_bos else (), (bos,), scorer.block_size),
        loading=loading,
    )


def is_gnano_model(folder: Path) -> bool:
    """Return whether gnano's engine can load the folder; raise if its config contradicts itself."""
    try:
        read_hf_config(read_json_object(folder / "config.json"))
        load_tokenizer(folder)
        return bool(find_weight_files(folder))
    except ConflictingValuesError:
        raise
    except (ValueError, OSError):
        return False


def check_transformers_installed(folder: Path) -> None:
    """Raise ValueError if the model needs transformers and transformers is not installed."""
    if not is_gnano_model(folder):
        require("transformers", "eval", f"{folder} is not a gnano model and needs transformers")


def training_tokens(folder: Path) -> int | None:
    """Return the tokens of all training stages; None if no run records them."""
    stages = training_stages(folder)
    return sum(one.step * one.recipe.train.tokens_per_step for one in stages) if stages else None
