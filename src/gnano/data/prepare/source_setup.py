"""Opens a data folder: checks all sources, and creates or verifies its manifest and tokenizer.

Errors that need no tokenizing are raised here, before the work starts: a glob without files, a
gated data set, a renamed column, a folder prepared from another configuration.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnano.config.data_config import DataConfig
from gnano.data.manifest import (
    MANIFEST_NAME,
    Manifest,
    ShardPlan,
    SourcePlan,
    is_heldout,
    write_marker,
)
from gnano.data.prepare.merge_shards import has_all_task_files
from gnano.data.prepare.worker_pool import draft_folder
from gnano.data.source_files import (
    SourceFiles,
    check_source_files,
    describe_local_file,
    find_files,
    find_source_files,
    read_task_documents,
)
from gnano.data.text_files import RecordError
from gnano.utils.files import check_output_path, lock_folder

if TYPE_CHECKING:
    from gnano.tokenizer.bpe import Tokenizer


DOWNLOADS_FOLDER = ".downloads"  # in the data folder
TOKENIZER_SAMPLE_CHARS = 32 * 2**20  # characters of text to train a tokenizer on


@contextmanager
def open_data_folder(config: DataConfig) -> Iterator[tuple[Manifest, dict[str, SourceFiles]]]:
    """Lock a folder; yield its manifest, created if it is new, and the files of every source.

    A finished folder with all its files is not changed, and needs no request to the Hub. Raises
    ValueError if the folder contains inputs or is of another kind, and otherwise with a sentence
    for each source that cannot be used.
    """
    folder = Path(config.folder)
    files = [file for source in config.sources.values() for file in source.files]
    inputs = (*files, *config.decontaminate)
    check_output_path(folder, "--data.folder", inputs, allowed_kind="data folder")
    with lock_folder(folder):
        if not config.sources:
            raise ValueError("The recipe has no sources to prepare. Add some (data.sources).")
        saved = Manifest.load(folder) if (folder / MANIFEST_NAME).exists() else None
        found: dict[str, SourceFiles] = {}
        problems = []
        for name, source in config.sources.items():
            earlier = saved.plan.sources.get(name) if saved else None
            if saved and saved.complete and earlier and source.kind != "files":
                # no file will be read, so neither the network nor the same packages are needed
                found[name] = SourceFiles(source, earlier.tasks, Path(), earlier.commit)
                continue
            same = earlier and (earlier.repo, earlier.revision) == (source.repo, source.revision)
            try:
                # a branch may have changed since; an unfinished folder keeps its commit
                found[name] = find_source_files(source, earlier.commit if earlier and same else "")
                if saved is None or not saved.complete:
                    check_source_files(found[name])
            except (ValueError, OSError) as error:
                if getattr(error, "errno", None) is not None:
                    raise
                problems.append(f"data.sources.{name}: {error}")
        if problems:
            raise ValueError("\n".join(problems))
        yield _open_manifest(config, folder, saved, found), found


def _open_manifest(
    config: DataConfig, folder: Path, saved: Manifest | None, inputs: dict[str, SourceFiles]
) -> Manifest:
    """Return the folder's manifest, new or brought up to date."""
    evaluations = find_files(config.decontaminate)
    sources = {}
    for name, found in inputs.items():
        settings = asdict(found.source)
        for key in ("weight", "files", "generator"):  # tasks name the last two
            del settings[key]
        sources[name] = SourcePlan(**settings, commit=found.commit, tasks=found.tasks)
    plan = ShardPlan(
        tokenizer=config.tokenizer,
        heldout=config.heldout_fraction,
        shard_tokens=config.shard_tokens,
        decontaminate=tuple(describe_local_file(path, path.parent) for path in evaluations.paths),
        sources=sources,
    )
    skipped = {name: list(found.skipped) for name, found in inputs.items()}
    skipped["data.decontaminate"] = [f"{p.name} ({why})" for p, why in evaluations.skipped.items()]
    changeable: dict[str, Any] = {  # while the plan stays the same
        "weights": config.weights,
        "max_bad_share": float(config.max_bad_share),
        "skipped": {name: files for name, files in skipped.items() if files},
    }
    if saved is None:
        tokenizer = _save_new_tokenizer(config, folder, inputs)
        vocabulary = {key: getattr(tokenizer, key) for key in ("name", "fingerprint", "vocab_size")}
        vocabulary["end_of_text"] = tokenizer.end_of_text_id
        manifest = Manifest(plan=plan, tokenizer=vocabulary, sources={}, **changeable)
        manifest.save(folder)
        return manifest
    manifest = _check_saved_manifest(folder, saved, plan)
    if any(getattr(manifest, key) != value for key, value in changeable.items()):
        vars(manifest).update(changeable)
        manifest.save(folder)
    if manifest.complete:  # tasks whose files are missing are done again
        tasks = [
            (folder / name, number, task)
            for name, info in manifest.sources.items()
            for number, task in enumerate(info.tasks)
        ]
        intact = [task for task in tasks if has_all_task_files(*task)]
        if len(intact) < len(tasks):
            for task in intact:
                write_marker(*task)
            manifest.complete = False
            manifest.save(folder)
    return manifest


def _check_saved_manifest(folder: Path, saved: Manifest, plan: ShardPlan) -> Manifest:
    """Return the saved manifest if it belongs to this plan; raise ValueError otherwise."""
    from gnano.tokenizer.hf_tokenizer import load_tokenizer

    if load_tokenizer(folder).fingerprint != saved.tokenizer["fingerprint"]:
        raise ValueError(
            f"{folder / 'tokenizer.json'} is not the tokenizer that made these shards. "
            f"Restore that tokenizer, or prepare another folder (--data.folder)."
        )
    if saved.plan == plan and list(saved.plan.sources) == list(plan.sources):
        return saved
    finished = {name: len(info.tasks) for name, info in saved.sources.items()}
    if not saved.complete and saved.plan.is_compatible_with(plan, finished):
        # a bad record was corrected in a file that no finished task has read
        for name, source in plan.sources.items():
            for task, files in enumerate(source.tasks):
                if files != saved.plan.sources[name].tasks[task]:
                    shutil.rmtree(draft_folder(folder, name, task), ignore_errors=True)
        saved.plan = plan
        saved.save(folder)
        return saved
    different = " and ".join(saved.plan.list_differences(plan))
    raise ValueError(
        f"{folder} was prepared with another {different}. Choose another folder (--data.folder)."
    )


def _save_new_tokenizer(
    config: DataConfig, folder: Path, inputs: dict[str, SourceFiles]
) -> "Tokenizer":
    """Make and save the tokenizer of a new folder; raise ValueError if it has other files."""
    from gnano.tokenizer.gpt2 import load_gpt2_tokenizer
    from gnano.tokenizer.hf_tokenizer import load_tokenizer
    from gnano.tokenizer.train_bpe import train_bpe

    for name in config.sources:
        if found := next((folder / name).glob("*"), None):
            raise ValueError(
                f"{folder / name} is the folder for the shards of source {name!r}, but it has "
                f"other files ({found.name}). Rename the source, or choose another data.folder."
            )
    kind, _, size = config.tokenizer.partition("-")
    path = Path(config.tokenizer).expanduser()
    if config.tokenizer == "gpt2":
        tokenizer = load_gpt2_tokenizer()
    elif kind == "bpe" and size.isdecimal():
        tokenizer = train_bpe(_iter_training_text(config, folder, inputs), int(size))
    elif not path.is_dir():
        raise ValueError(
            f"data.tokenizer is {config.tokenizer!r}, which is neither gpt2, nor bpe-N "
            f"(such as bpe-4096), nor a folder."
        )
    elif (path / "tokenizer.json").exists():
        tokenizer = load_tokenizer(path)
    else:
        tokenizer = load_gpt2_tokenizer(path)
    tokenizer.save(folder)
    return tokenizer


def _iter_training_text(
    config: DataConfig, folder: Path, inputs: dict[str, SourceFiles]
) -> Iterator[str]:
    """Yield training text of all sources in proportion to their weights, without held-out text."""
    total_weight = sum(config.weights.values())
    for name, found in inputs.items():
        share = remaining = TOKENIZER_SAMPLE_CHARS * found.source.weight / total_weight
        downloads = folder / DOWNLOADS_FOLDER / name
        # bad records are counted and reported when the task is tokenized
        documents = (
            document
            for task in range(len(found.tasks))
            for document in read_task_documents(
                found.source, found.fetch_task(task, downloads), verify=False
            )
            if not isinstance(document, RecordError) and document.text.strip()
        )
        for document in documents:
            if remaining <= 0:
                break
            if not is_heldout(document, config.heldout_fraction):
                remaining -= len(document.text)
                yield document.text
        if share and remaining == share:
            raise ValueError(f"Source {name!r} ({found.source.location}) has no training text.")
