"""Exports the model of a checkpoint, and merges an adapter into its base model.

`export_weights` writes the model and its tokenizer as a folder, without `trainer/`:

    step-00001000/ ─┬─ config.json, tokenizer … ──── copied ────▶ OUT/
                    ├─ model.safetensors ──────────── linked ───▶
                    └─ trainer/                                  files.json, its checksums

The copy is compared with the checkpoint's hashes and appears complete or not at all. Weights are
hard links if the file system allows, so that they take no space twice; what a user may edit, such
as config.json, is copied, because an edit of a link would damage the checkpoint.

`merge_adapter` writes a model that needs neither base nor adapter, as a Hugging Face folder:

    BASE ───── config.json, generation_config.json ─────────▶ OUT/
      └─────── model.safetensors ──▶ W + its change ────────▶
    ADAPTER ── adapter_model.safetensors ──▲                   files.json
      └─────── tokenizer, template, else those of BASE ─────▶

Weights keep the dtype of the base; the sum is computed in fp32.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from gnano.checkpoint.run_checkpoints import (
    ADAPTER_DIR,
    CHECKPOINTS_DIR,
    CHECKSUMS_FILE,
    find_checkpoint,
    verify_checksums,
    write_checksums,
)
from gnano.model.hf_io import load_model, save_tensors
from gnano.model.lora import ADAPTER_CONFIG_NAME, check_adapter_shape, load_adapter, merge_lora
from gnano.tokenizer.hf_tokenizer import JINJA_TEMPLATE_FILE, TOKENIZER_FILES
from gnano.utils.files import check_output_path, create_dir_atomically

CONFIG_FILES = ("config.json", "generation_config.json")
CHAT_TEMPLATE_FILES = (JINJA_TEMPLATE_FILE, "template.json")


def export_weights(path: Path, output: Path) -> Path:
    """Export a checkpoint, or a run's newest one, as the folder `output`; return `output`.

    Raises ValueError or OSError if the checkpoint is damaged or `output` exists.
    """
    check_output_path(output, "OUT", [path])
    checkpoint = find_checkpoint(path)
    list_file = checkpoint / CHECKSUMS_FILE
    try:
        listed = dict(json.loads(list_file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{list_file} cannot be read ({error}), so the model cannot be verified; give a "
            f"checkpoint that gnano pretrain wrote."
        ) from None
    # the model's files are those at the top level
    hashes = {name: entry for name, entry in listed.items() if Path(name).name == name != ".."}
    if not {"config.json", "model.safetensors"} <= hashes.keys():
        raise ValueError(
            f"{list_file} lists no model (config.json, model.safetensors): it is damaged."
        )
    with create_dir_atomically(output) as partial:
        for name in hashes:
            if name.endswith(".safetensors"):
                with suppress(OSError):  # another file system, or one without links
                    os.link((checkpoint / name).resolve(), partial / name)
            if not (partial / name).exists():
                shutil.copyfile(checkpoint / name, partial / name)
        (partial / CHECKSUMS_FILE).write_text(json.dumps(hashes, indent=2) + "\n", "utf-8")
        try:
            verify_checksums(partial)
        except ValueError as error:
            problem = str(error).replace(str(partial), str(checkpoint))
            raise ValueError(f"{problem} Nothing was written; export another checkpoint.") from None
    return output


def merge_adapter(base: Path, adapter: Path, output: Path) -> Path:
    """Write the base model with the adapter merged, as the folder `output`; return `output`.

    Base and adapter may each be a checkpoint or a run, whose newest checkpoint is used. Raises
    ValueError or OSError if one is damaged, they do not fit together, or `output` exists.
    """
    check_output_path(output, "OUT", [base, adapter])
    base, adapter = find_checkpoint(base), _find_adapter_dir(adapter)
    tokenizer_sources = [adapter, base]
    if adapter.name == ADAPTER_DIR and (adapter.parent / "config.json").is_file():
        tokenizer_sources.insert(1, adapter.parent)
        ours, theirs = base.resolve(), adapter.parent.resolve()
        is_same_run = ours.parent == theirs.parent and ours.parent.name == CHECKPOINTS_DIR
        if ours == theirs or is_same_run:
            raise ValueError(
                f"{ours} already includes this adapter, which would be merged twice: give the base "
                f"model that its run started from, or export the checkpoint as it is "
                f"(gnano weights)."
            )
    with create_dir_atomically(output) as partial:
        config, changes = load_adapter(adapter)
        model = load_model(base)
        check_adapter_shape(changes, config, model.config)
        weights = merge_lora({**model.state_dict(), **changes}, config)
        save_tensors(weights, partial / "model.safetensors")
        _copy_existing(CONFIG_FILES, base, partial)
        copy_tokenizer_files(tokenizer_sources, partial)
        write_checksums(partial)
    return output


def _find_adapter_dir(path: Path) -> Path:
    folder = path
    if not (path / ADAPTER_CONFIG_NAME).is_file():
        with suppress(FileNotFoundError):
            folder = find_checkpoint(path) / ADAPTER_DIR
    if not (folder / ADAPTER_CONFIG_NAME).is_file():
        raise FileNotFoundError(
            f"{path} is no adapter (it has no {ADAPTER_CONFIG_NAME}), and no run or checkpoint "
            f"that contains one; to train one, set train.lora.rank."
        )
    return folder


def copy_tokenizer_files(sources: list[Path], target: Path) -> None:
    """Copy tokenizer and chat template from the first folder that has them.

    A chat template is not used with another tokenizer: if the first tokenizer comes without a
    template, there is none.
    """
    has_template = False
    for folder in sources:
        has_template = has_template or _copy_existing(CHAT_TEMPLATE_FILES, folder, target)
        if _copy_existing(TOKENIZER_FILES, folder, target):
            break


def _copy_existing(names: tuple[str, ...], source: Path, target: Path) -> bool:
    """Copy those of the files that exist; return whether there were any."""
    found = [name for name in names if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, target / name)
    return bool(found)
