"""Which model do a base and an adapter make? One that needs neither, as a Hugging Face folder.

    BASE ───── config.json, generation_config.json ─────────▶ OUT/
      └─────── model.safetensors ──▶ W + its change ────────▶
    ADAPTER ── adapter_model.safetensors ──▲                   files.json
      └─────── tokenizer, template, else those of BASE ─────▶

Weights keep the base's dtype; the sum is made in fp32.
"""

import shutil
from pathlib import Path

from gnano.model.adapter import CONFIG, check_fits, load_adapter
from gnano.model.folder import load_model, save_tensors
from gnano.model.lora import merged
from gnano.train.appearing import new_folder
from gnano.train.saving.folders import ADAPTER, FOLDER, find_checkpoint
from gnano.train.saving.hashes import write_hashes
from gnano.utils.output import check_output

SHAPE = ("config.json", "generation_config.json")
TEMPLATE = ("chat_template.jinja", "template.json")
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "vocab.json", "merges.txt"),
)


def merge_adapter(base: Path, adapter: Path, out: Path) -> Path:
    """Write the base as the adapter changes it, as the folder `out`; returns `out`.

    Base and adapter may each be a run, whose newest checkpoint is meant, or a checkpoint. Raises
    ValueError or OSError where one is damaged, they do not fit, or `out` is there already.
    """
    check_output(out, "OUT", [base, adapter])
    base, adapter = find_checkpoint(base), _find_adapter(adapter)
    places = [adapter, base]
    if adapter.name == ADAPTER and (adapter.parent / "config.json").is_file():
        _refuse_twice(base.resolve(), adapter.parent.resolve())
        places.insert(1, adapter.parent)
    with new_folder(out) as partial:
        config, changes = load_adapter(adapter)
        model = load_model(base)
        check_fits(changes, config, model.config)
        weights = merged({**model.state_dict(), **changes}, config)
        save_tensors(weights, partial / "model.safetensors")
        _copy(SHAPE, base, partial)
        copy_words(places, partial)
        write_hashes(partial)
    return out


def _find_adapter(path: Path) -> Path:
    if (path / CONFIG).is_file():
        return path
    try:
        found = find_checkpoint(path) / ADAPTER
    except FileNotFoundError:
        found = path
    if not (found / CONFIG).is_file():
        raise FileNotFoundError(
            f"{path} is no adapter (it has no {CONFIG}), and no run or checkpoint that holds one; "
            f"a run learns one with train.lora.rank."
        )
    return found


def _refuse_twice(base: Path, tuned: Path) -> None:
    """A checkpoint that holds an adapter has it in its weights already, and so has its run."""
    of_one_run = base.parent == tuned.parent and base.parent.name == FOLDER
    if base == tuned or of_one_run:
        raise ValueError(
            f"{base} has learned this adapter already, and would be changed twice: name the base "
            f"that its run began with, or share it as it is (gnano weights)."
        )


def copy_words(places: list[Path], partial: Path) -> None:
    """Tokenizer and chat template of the first place that has them.

    A template does not outlive its tokenizer: where that was replaced and came with none, there
    is none.
    """
    template = False
    for place in places:
        template = template or _copy(TEMPLATE, place, partial)
        if _copy(TOKENIZER, place, partial):
            break


def _copy(names: tuple[str, ...], source: Path, target: Path) -> bool:
    """Those of the files that are there; were any?"""
    found = [name for name in names if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, target / name)
    return bool(found)
