"""Publishes a model on the Hub: first as a folder to inspect, then as one commit.

    checkpoint ─┬─ the model's files ─┐
    --include ──┴─────────────────────┼─▶ published/NAME ─▶ large files, one by one ─▶ one commit
    the run ───── README.md, the card ┘

The folder is kept: a card that its author has edited is published as it is, and a second run finds
everything in its place. Large files reach the Hub's storage before the commit that names them,
so the commit is atomic; storage identifies them by hash, so a run after a failed one does not
upload again what has arrived.
"""

import filecmp
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gnano.checkpoint.export_weights import export_weights
from gnano.checkpoint.format import find_checkpoint
from gnano.export.export_source import load_export_source
from gnano.export.hub_upload import HubRepo
from gnano.export.model_card import build_model_card
from gnano.utils.atomic_io import atomic_replace, atomic_write_text
from gnano.utils.streams import check_output_path

CARD_FILE = "README.md"
CHECKSUMS_FILE = "files.json"  # of our checkpoints
MAX_FILE_BYTES = 50_000_000_000  # bytes: the Hub takes no larger file
HARD_LINKED_SUFFIXES = (
    ".safetensors",
    ".gguf",
    ".onnx",
    ".data",
    ".bin",
)  # large, and never edited by hand
MODEL_FILE_PATTERN = re.compile(  # what a model needs; all else in a folder is nobody's business
    r"(generation_)?config\.json|model\.safetensors|files\.json|tokenizer.*|vocab\.json|merges\.txt"
    r"|special_tokens_map\.json|added_tokens\.json|chat_template\..*|template\.json|README\.md"
    r"|LICENSE.*|NOTICE.*"
)


@dataclass(frozen=True)
class PublishResult:
    folder: Path
    file_sizes: dict[str, int]  # name -> bytes
    url: str  # "" where nothing was sent

    def __str__(self) -> str:
        rows = [f"{size:>16,}  {name}" for name, size in self.file_sizes.items()]
        total = (
            f"{sum(self.file_sizes.values()):>16,}  bytes in {len(rows)} files, in {self.folder}"
        )
        end = (
            self.url
            or "Nothing was sent. Look at README.md and its licence; without --dry-run it goes up."
        )
        return "\n".join([*rows, total, end])


def publish(
    checkpoint: Path,
    repo: str,
    *,
    private: bool = False,
    license_id: str = "",
    languages: Sequence[str] = (),
    prompts: Sequence[str] = (),
    include: Sequence[Path] = (),
    output_folder: Path | None = None,
    allow_update: bool = False,
    dry_run: bool = False,
) -> PublishResult:
    """Make the folder of a checkpoint, a run's newest one or a model folder, and send it.

    Raises ValueError or OSError, in a sentence, for what is wrong here or refused there.
    """
    _check_repo_id(repo)
    output_folder = output_folder or Path("published") / repo.split("/")[1]
    check_output_path(output_folder, "--out", [checkpoint, *include])
    source = find_checkpoint(checkpoint)
    parts = _collect_files(source, include)
    hub = None if dry_run else HubRepo(repo, private)  # checks the token before anything is written
    _fill_folder(output_folder, source, parts)
    if not (output_folder / CARD_FILE).exists():
        atomic_write_text(
            output_folder / CARD_FILE,
            build_model_card(source, repo, parts, license_id, languages, prompts),
        )
    files = {name: (output_folder / name).stat().st_size for name in sorted({*parts, CARD_FILE})}
    if hub is None:
        return PublishResult(output_folder, files, "")
    if not allow_update:
        hub.check_no_conflicts(output_folder, files)
    return PublishResult(output_folder, files, hub.upload(output_folder, files, CARD_FILE))


def _check_repo_id(repo: str) -> None:
    word = r"\w(?:[\w.-]*\w)?"
    odd = "--" in repo or ".." in repo or repo.endswith(".git") or len(repo) > 96
    if odd or not re.fullmatch(rf"{word}/{word}", repo, re.ASCII):
        raise ValueError(
            f"{repo!r} is no name of a repository: write USER/NAME, in letters, digits and single "
            f"-, _ and . between them, 96 characters at most."
        )


def _collect_files(source: Path, include: Sequence[Path]) -> dict[str, Path]:
    """Map each name in the repository to its file, without a card that is still to be written."""
    load_export_source(source)  # raises unless it is a complete model with its tokenizer
    found = {
        p.name: p for p in source.iterdir() if p.is_file() and MODEL_FILE_PATTERN.fullmatch(p.name)
    }
    for path in include:
        if not path.exists():
            raise FileNotFoundError(f"There is no {path} to include: export it first, or name it.")
        for file in [path] if path.is_file() else _visible_files(path):
            name = file.relative_to(path.parent).as_posix()
            if name in found:
                raise ValueError(
                    f"Two files would be {name}: {found[name]} and {file}; rename one."
                )
            found[name] = file
    for name, file in found.items():
        if (size := file.stat().st_size) > MAX_FILE_BYTES:
            raise ValueError(
                f"{file} has {size / 1e9:.1f} GB, and the Hub takes files of {MAX_FILE_BYTES / 1e9:.0f} "
                f"at most: leave {name} out, or make it smaller."
            )
    return dict(sorted(found.items()))


def _fill_folder(out: Path, source: Path, files: Mapping[str, Path]) -> None:
    """Fill the folder; files that are there already must be the same, and no others."""
    for file in _visible_files(out):
        if file.relative_to(out).as_posix() not in {*files, CARD_FILE}:
            raise ValueError(
                f"{out} holds {file.relative_to(out)}, which is not to be published: take it out, "
                f"add it (--include), or name another folder (--out)."
            )
    if (source / CHECKSUMS_FILE).is_file() and not out.exists():
        export_weights(source, out)  # holds every byte against its checksum
    for name, file in files.items():
        target = out / name
        if name == CHECKSUMS_FILE and target.exists():  # of the checkpoint it lists more
            continue
        if not target.exists():
            _link_or_copy(file, target)
        elif not (file.samefile(target) or filecmp.cmp(file, target, shallow=False)):
            raise ValueError(
                f"{target} is there and is another file than {file}: name another folder (--out)."
            )


def _visible_files(folder: Path) -> list[Path]:
    """Its files, without what is hidden: keys, caches, what a stopped run has left."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(f for f in files if "/." not in f"/{f.relative_to(folder).as_posix()}")


def _link_or_copy(file: Path, target: Path) -> None:
    """Place a file atomically; a large one is linked where the file system can, to save space."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(target) as temporary:
        if file.name.endswith(HARD_LINKED_SUFFIXES):
            with suppress(OSError):
                os.link(file.resolve(), temporary)
                return
        shutil.copyfile(file, temporary)
