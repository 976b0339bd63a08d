"""Who is asked? One of our models, or any causal model that transformers opens.

a run, a checkpoint, a Llama folder as ours ──▶ GPTReader
any other Hugging Face folder ───────────────▶ TransformersReader
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gnano.evals.asked import Start
from gnano.evals.asking import Wording
from gnano.evals.likelihood import GPU_LOGITS, GPTReader, Ids, Option, Question, Reader, option_nats
from gnano.infer import Engine, Loading
from gnano.model import ModelConfig
from gnano.model import num_parameters as model_parameters
from gnano.model.devices import device_called
from gnano.model.folder import WEIGHTS, read_json
from gnano.report import stages
from gnano.tokenizer import Tokenizer
from gnano.train import find_checkpoint
from gnano.utils.agreement import DisagreementError
from gnano.utils.openmp import use_threads

DEFAULT = Loading()
# as others name them
DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Subject:
    folder: Path
    name: str
    parameters: int
    reader: Reader
    wording: Wording
    tokenizer: Tokenizer | None  # None: a foreign one
    tokens: int | None  # that it was trained on, where its run tells
    loading: Loading = DEFAULT


def open_subject(path: Path, loading: Loading = DEFAULT, start: Start = "auto") -> Subject:
    """The model of a run, a checkpoint or a Hugging Face folder.

    `start` says whether texts begin with end-of-text: auto is so with our models, as in training,
    and with others where their own tokenizer puts it there. Raises ValueError or OSError, in a
    sentence, where there is no model that can be asked.
    """
    folder = find_checkpoint(path)
    use_threads(loading.threads)
    if loading.compile:
        raise ValueError("--compile makes each token that is written sooner; here none is written.")
    if is_ours(folder):
        return _ours(path, folder, loading, start)
    if loading.quant:
        raise ValueError(f"{folder} is not one of our models: --quant is for those.")
    return _foreign(path, folder, loading, start)


def is_ours(folder: Path) -> bool:
    """Can our engine read it as it lies?"""
    try:
        ModelConfig.from_hf(read_json(folder / "config.json"))
        Tokenizer.load(folder)
    except DisagreementError:  # which reader should be believed?
        raise
    except (ValueError, OSError):
        return False
    return (folder / WEIGHTS).is_file()


def _ours(path: Path, folder: Path, loading: Loading, start: Start) -> Subject:
    engine = Engine.load(folder, **asdict(loading))
    engine.expect_several()
    model, tokenizer = engine.model, engine.tokenizer
    return Subject(
        folder=folder,
        name=_name(path, folder),
        parameters=model_parameters(model.config),
        reader=GPTReader(model),
        wording=Wording.ours(tokenizer, model.config.block_size, start != "no"),
        tokenizer=tokenizer,
        tokens=trained_on(folder),
        loading=loading,
    )


def _name(path: Path, folder: Path) -> str:
    """As the user named it; a run with the step that its checkpoint is of."""
    if folder.parent.name != "checkpoints":
        return path.name or str(path)
    return f"{folder.parent.parent.name}, step {int(folder.name.removeprefix('step-')):,}"


def trained_on(folder: Path) -> int | None:
    """Tokens, in pretraining and all that followed; None where no run tells."""
    found = stages(folder)
    return sum(one.step * one.recipe.train.tokens_per_step for one in found) if found else None


def check_packages(folder: Path) -> None:
    """Raise ValueError for a model that only transformers opens, where that is not installed."""
    if not is_ours(folder) and find_spec("transformers") is None:
        raise ValueError(
            f"{folder} is not one of our models, and others are opened by transformers: "
            f"pip install 'auto-g-nano[eval]'."
        )


def _foreign(path: Path, folder: Path, loading: Loading, start: Start) -> Subject:
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
    own = tokenizer.encode("a")[:1] == [first]
    before = (first,) if start == "yes" or (start == "auto" and own) else ()
    reader = TransformersReader(model.eval().to(device_called(loading.device)))
    return Subject(
        folder=folder,
        name=_name(path, folder),
        parameters=model.num_parameters(),
        reader=reader,
        wording=Wording(encode, before, (first,), reader.context),
        tokenizer=None,
        tokens=None,
        loading=loading,
    )


class TransformersReader:
    """Each option is computed whole: slow, and right for every model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def context(self) -> int:
        config = self.model.config
        found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_ctx", None)
        return int(found or 2_048)

    def begin(self, head: Ids) -> None:
        """Nothing is kept."""

    def __call__(self, questions: Sequence[Question]) -> Tensor:
        options = [option for question in questions for option in question.options]
        longest = max(len(option.ids) for option in options)
        rows = max(1, GPU_LOGITS // (4 * self.model.config.vocab_size * longest))
        parts = [self._answer(options[at : at + rows]) for at in range(0, len(options), rows)]
        return torch.cat(parts)

    @torch.no_grad()
    def _answer(self, options: Sequence[Option]) -> Tensor:
        width = max(len(option.ids) for option in options) - 1
        padded = [[*o.ids[:-1], *[0] * (width - len(o.ids) + 1)] for o in options]
        ids_BT = torch.tensor(padded, device=self.model.device)
        logits_BTV = self.model(input_ids=ids_BT, use_cache=False).logits
        places = [
            place
            for row, option in enumerate(options)
            for place in range(
                row * width + len(option.ids) - 1 - option.scored, row * width + len(option.ids) - 1
            )
        ]
        logits_NV = logits_BTV.flatten(0, 1)
        return option_nats(Tensor.float, logits_NV.shape[-1], options, logits_NV, places)
