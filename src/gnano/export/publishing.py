"""Publishes a model on the Hub: first as a folder to review, then as one commit.

    checkpoint ─┬─ the model's files ─┐
    --include ──┴─────────────────────┼─▶ published/NAME ─▶ large files, one by one ─▶ one commit
    the run ───── README.md, the card ┘

The folder is kept: an edited card is published as it is, and a second run reuses the folder. Large
files are uploaded before the commit that names them, so the commit is atomic; they are stored by
hash, so a run after a failed one uploads only what is missing.
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
from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.export.export_source import load_export_source
from gnano.export.hub_upload import HubRepo
from gnano.export.model_card import build_model_card
from gnano.utils.files import atomic_replace, atomic_write_text, check_output_path

CARD_FILE = "README.md"
CHECKSUMS_FILE = "files.json"
MAX_FILE_BYTES = 50_000_000_000  # the Hub accepts no larger file
HARD_LINKED_SUFFIXES = (".safetensors", ".gguf", ".onnx", ".data", ".bin")  # large, never edited
MODEL_FILE_PATTERN = re.compile(  # files of a model; others in its folder are not published
    r"(generation_)?config\.json|model\.safetensors|files\.json|tokenizer.*|vocab\.json|merges\.txt"
    r"|special_tokens_map\.json|added_tokens\.json|chat_template\..*|template\.json|README\.md"
    r"|LICENSE.*|NOTICE.*"
)


@dataclass(frozen=True)
class PublishResult:
    """The folder that was published, or only filled in a dry run."""

    folder: Path
    file_sizes: dict[str, int]  # name -> bytes
    url: str  # "" where nothing was sent

    def __str__(self) -> str:
        rows = [f"{size:>16,}  {name}" for name, size in self.file_sizes.items()]
        total = sum(self.file_sizes.values())
        rows.append(f"{total:>16,}  bytes in {len(rows)} files, in {self.folder}")
        dry = "Nothing was sent. Review README.md and its license, then run without --dry-run."
        return "\n".join([*rows, self.url or dry])


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
    """Fill the folder of a checkpoint, a run's newest one or a model folder, and upload it.

    Raises ValueError or OSError for a problem with the files, or a refusal of the Hub.
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
            f"{repo!r} is not the name of a repository: write USER/NAME, in letters, digits and "
            f"single -, _ and . between them, 96 characters at most."
        )


def _collect_files(source: Path, include: Sequence[Path]) -> dict[str, Path]:
    """Map each name in the repository to its file, except a card not yet written."""
    load_export_source(source)  # raises unless it is a complete model with a tokenizer
    found = {
        p.name: p for p in source.iterdir() if p.is_file() and MODEL_FILE_PATTERN.fullmatch(p.name)
    }
    for path in include:
        if not path.exists():
            raise FileNotFoundError(
                f"There is no {path} to include: export it first, or name another."
            )
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
                f"{file} has {size / 1e9:.1f} GB, and the Hub accepts at most "
                f"{MAX_FILE_BYTES / 1e9:.0f}: leave {name} out, or make it smaller."
            )
    return dict(sorted(found.items()))


def _fill_folder(out: Path, source: Path, files: Mapping[str, Path]) -> None:
    """Fill the folder; existing files must be the same, and no others may exist."""
    for file in _visible_files(out):
        if file.relative_to(out).as_posix() not in {*files, CARD_FILE}:
            raise ValueError(
                f"{out} holds {file.relative_to(out)}, which is not to be published: remove it, "
                f"add it (--include), or name another folder (--out)."
            )
    if (source / CHECKSUMS_FILE).is_file() and not out.exists():
        export_weights(source, out)  # verifies every checksum
    for name, file in files.items():
        target = out / name
        if name == CHECKSUMS_FILE and target.exists():  # the checkpoint's own lists more
            continue
        if not target.exists():
            _link_or_copy(file, target)
        elif not (file.samefile(target) or filecmp.cmp(file, target, shallow=False)):
            raise ValueError(
                f"{target} exists and differs from {file}: name another folder (--out)."
            )


def _visible_files(folder: Path) -> list[Path]:
    """Return a folder's files without hidden ones: keys, caches, leftovers of a stopped run."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(f for f in files if "/." not in f"/{f.relative_to(folder).as_posix()}")


def _link_or_copy(file: Path, target: Path) -> None:
    """Place a file atomically; link a large one where the file system allows it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replace(target) as temporary:
        if file.name.endswith(HARD_LINKED_SUFFIXES):
            with suppress(OSError):
                os.link(file.resolve(), temporary)
                return
        shutil.copyfile(file, temporary)
