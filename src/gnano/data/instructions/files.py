"""Where do a source's records lie? Files of the user's, or the Hub's, which come here once.

The Hub's files lie in a folder of their own beside a note of the commit that they are of; while
it is there, the network is not asked again, so a run goes on without it, and with the same data.

    data/hub/databricks--databricks-dolly-15k/main.json      {"commit": …, "files": …}
                                              3f2c…/databricks-dolly-15k.jsonl
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gnano.data.instructions.config import InstructionSource
from gnano.utils.atomic_io import write_text


def files_of(
    source: InstructionSource, downloads: Path, say: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Paths or globs of the source's files, which are here when this returns.

    Raises ValueError or OSError, in a sentence, for what is not there or may not be read.
    """
    if source.kind != "hub":
        return list(source.files)
    from gnano.data.hub import HubFile, download, resolve

    folder = downloads / source.repo.replace("/", "--")
    note = folder / f"{_name(source)}.json"
    if note.is_file():
        commit, files = _read(note)
    else:
        commit, found = resolve(source.repo, source.config, source.split, source.revision)
        files = [HubFile(*file) for file in found]
    paths = []
    for number, file in enumerate(files, 1):
        size = f"{file.size / 1e6:,.1f} MB"
        say(f"{source.repo}: file {number} of {len(files)}, {file.name}, {size}")
        paths.append(str(download(source.repo, commit, file, folder / commit)))
    if not note.is_file():
        write_text(note, json.dumps({"commit": commit, "files": files}, indent=2) + "\n")
    return paths


def _name(source: InstructionSource) -> str:
    """Of the note: another configuration, split or revision has one of its own."""
    asked = "-".join(filter(None, (source.config, source.split, source.revision)))
    if asked.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return asked
    return hashlib.sha256(asked.encode()).hexdigest()[:16]  # a path, such as data/en


def _read(note: Path) -> tuple[str, list[Any]]:
    from gnano.data.hub import HubFile

    try:
        content = json.loads(note.read_text("utf-8"))
        return str(content["commit"]), [HubFile(*file) for file in content["files"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{note} is damaged ({error}): delete it, and the Hub is asked again."
        ) from None
