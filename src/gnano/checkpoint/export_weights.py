"""What of a checkpoint do others need? The model and its tokenizer, without `trainer/`.

    step-00001000/ ─┬─ config.json, tokenizer … ──── copied ────▶ OUT/
                    ├─ model.safetensors ──────────── linked ───▶
                    └─ trainer/                                  files.json of its own

The copy is held against the checkpoint's hashes and appears whole or not at all. Weights are
linked where the file system can, so that they take no room twice; what a person may want to
edit, such as config.json, is copied, since an edit of a link would damage the checkpoint.

Which model do a base and an adapter make? One that needs neither, as a Hugging Face folder.

    BASE ───── config.json, generation_config.json ─────────▶ OUT/
      └─────── model.safetensors ──▶ W + its change ────────▶
    ADAPTER ── adapter_model.safetensors ──▲                   files.json
      └─────── tokenizer, template, else those of BASE ─────▶

Weights keep the base's dtype; the sum is made in fp32.
"""

import json
import os
import shutil
from pathlib import Path

from gnano.checkpoint.checksums import CHECKSUMS_FILE, verify_checksums, write_checksums
from gnano.checkpoint.format import ADAPTER_DIR, CHECKPOINTS_DIR, find_checkpoint
from gnano.model.hf_io import load_model, save_tensors
from gnano.model.lora import merge_lora
from gnano.model.peft_io import ADAPTER_CONFIG_NAME, check_adapter_shape, load_adapter
from gnano.utils.atomic_io import create_dir_atomically
from gnano.utils.streams import check_output_path


def export_weights(path: Path, output: Path) -> Path:
    """Share a checkpoint, or a run's newest one, as the folder `out`; returns `out`.

    Raises ValueError or OSError where it is damaged or `out` is there already.
    """
    check_output_path(output, "OUT", [path])
    checkpoint = find_checkpoint(path)
    hashes = _read_model_hashes(checkpoint)
    with create_dir_atomically(output) as partial:
        for name in hashes:
            _link_or_copy(checkpoint / name, partial / name)
        (partial / CHECKSUMS_FILE).write_text(json.dumps(hashes, indent=2) + "\n", "utf-8")
        _verify_copy(partial, checkpoint)
    return output


def _read_model_hashes(checkpoint: Path) -> dict[str, object]:
    """The files of the checkpoint's list that lie in it itself: those of the model."""
    path = checkpoint / CHECKSUMS_FILE
    try:
        listed = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}), so nothing tells whether the model is whole; "
            f"give a checkpoint that gnano pretrain wrote."
        ) from None
    found = {name: entry for name, entry in listed.items() if Path(name).name == name != ".."}
    if not {"config.json", "model.safetensors"} <= found.keys():
        raise ValueError(f"{path} lists no model (config.json, model.safetensors): it is damaged.")
    return found


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        if source.suffix == ".safetensors":
            os.link(source.resolve(), target)
            return
    except OSError:  # another file system, or one without links
        pass
    shutil.copyfile(source, target)


def _verify_copy(partial: Path, checkpoint: Path) -> None:
    try:
        verify_checksums(partial)
    except ValueError as error:
        said = str(error).replace(str(partial), str(checkpoint))
        raise ValueError(f"{said} Nothing was written; share another checkpoint.") from None


CONFIG_FILES = ("config.json", "generation_config.json")
CHAT_TEMPLATE_FILES = ("chat_template.jinja", "template.json")
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "vocab.json", "merges.txt"),
)


def merge_adapter(base: Path, adapter: Path, output: Path) -> Path:
    """Write the base as the adapter changes it, as the folder `out`; returns `out`.

    Base and adapter may each be a run, whose newest checkpoint is meant, or a checkpoint. Raises
    ValueError or OSError where one is damaged, they do not fit, or `out` is there already.
    """
    check_output_path(output, "OUT", [base, adapter])
    base, adapter = find_checkpoint(base), _find_adapter_dir(adapter)
    places = [adapter, base]
    if adapter.name == ADAPTER_DIR and (adapter.parent / "config.json").is_file():
        _check_not_merged(base.resolve(), adapter.parent.resolve())
        places.insert(1, adapter.parent)
    with create_dir_atomically(output) as partial:
        config, changes = load_adapter(adapter)
        model = load_model(base)
        check_adapter_shape(changes, config, model.config)
        weights = merge_lora({**model.state_dict(), **changes}, config)
        save_tensors(weights, partial / "model.safetensors")
        _copy_existing(CONFIG_FILES, base, partial)
        copy_tokenizer_files(places, partial)
        write_checksums(partial)
    return output


def _find_adapter_dir(path: Path) -> Path:
    if (path / ADAPTER_CONFIG_NAME).is_file():
        return path
    try:
        found = find_checkpoint(path) / ADAPTER_DIR
    except FileNotFoundError:
        found = path
    if not (found / ADAPTER_CONFIG_NAME).is_file():
        raise FileNotFoundError(
            f"{path} is no adapter (it has no {ADAPTER_CONFIG_NAME}), and no run or checkpoint that holds one; "
            f"a run learns one with train.lora.rank."
        )
    return found


def _check_not_merged(base: Path, checkpoint: Path) -> None:
    """A checkpoint that holds an adapter has it in its weights already, and so has its run."""
    of_one_run = base.parent == checkpoint.parent and base.parent.name == CHECKPOINTS_DIR
    if base == checkpoint or of_one_run:
        raise ValueError(
            f"{base} has learned this adapter already, and would be changed twice: name the base "
            f"that its run began with, or share it as it is (gnano weights)."
        )


def copy_tokenizer_files(sources: list[Path], target: Path) -> None:
    """Tokenizer and chat template of the first place that has them.

    A template does not outlive its tokenizer: where that was replaced and came with none, there
    is none.
    """
    template = False
    for place in sources:
        template = template or _copy_existing(CHAT_TEMPLATE_FILES, place, target)
        if _copy_existing(TOKENIZER_FILES, place, target):
            break


def _copy_existing(names: tuple[str, ...], source: Path, target: Path) -> bool:
    """Those of the files that are there; were any?"""
    found = [name for name in names if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, target / name)
    return bool(found)
