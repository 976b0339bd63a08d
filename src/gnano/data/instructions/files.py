"""The files of a source's records: the user's, or the Hub's, which are downloaded once.

The Hub's files are stored in a folder of their own, with a listing of them and their commit. While
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
from gnano.utils.atomic_io import atomic_write_text


def resolve_source_files(
    source: InstructionSource, cache_dir: Path, notify: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Return paths or globs of the source's files, which are local from then on.

    Raises ValueError or OSError, in a sentence, for what is not there or may not be read.
    """
    if source.kind != "hub":
        return list(source.files)
    from gnano.data.hub.files import HubFile, download_file, resolve_dataset

    folder = cache_dir / source.repo.replace("/", "--")
    listing = folder / f"{_listing_name(source)}.json"
    if listing.is_file():
        commit, files = _read_listing(listing)
    else:
        commit, found = resolve_dataset(source.repo, source.config, source.split, source.revision)
        files = [HubFile(*file) for file in found]
    paths = []
    for number, file in enumerate(files, 1):
        size = f"{file.size / 1e6:,.1f} MB"
        notify(f"{source.repo}: file {number} of {len(files)}, {file.name}, {size}")
        paths.append(str(download_file(source.repo, commit, file, folder / commit)))
    if not listing.is_file():
        atomic_write_text(listing, json.dumps({"commit": commit, "files": files}, indent=2) + "\n")
    return paths


def _listing_name(source: InstructionSource) -> str:
    """Return a name: another configuration, split or revision has a listing of its own."""
    name = "-".join(filter(None, (source.config, source.split, source.revision)))
    if name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:16]  # a path, such as data/en


def _read_listing(listing: Path) -> tuple[str, list[Any]]:
    from gnano.data.hub.files import HubFile

    try:
        content = json.loads(listing.read_text("utf-8"))
        return str(content["commit"]), [HubFile(*file) for file in content["files"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{listing} is damaged ({error}): delete it, and the Hub is asked again."
        ) from None
