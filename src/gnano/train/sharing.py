"""What of a checkpoint do others need? The model and its tokenizer, without `trainer/`.

    step-00001000/ ─┬─ config.json, tokenizer … ──── copied ────▶ OUT/
                    ├─ model.safetensors ──────────── linked ───▶
                    └─ trainer/                                  files.json of its own

The copy is held against the checkpoint's hashes and appears whole or not at all. Weights are
linked where the file system can, so that they take no room twice; what a person may want to
edit, such as config.json, is copied, since an edit of a link would damage the checkpoint.
"""

import json
import os
import shutil
from pathlib import Path

from gnano.train.appearing import create_dir_atomically
from gnano.train.saving.folders import find_checkpoint
from gnano.train.saving.hashes import CHECKSUMS_FILE, verify_checksums
from gnano.utils.output import check_output_path


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
