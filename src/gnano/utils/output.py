"""Where a command may write: apart from what it reads, and not inside a run or a data folder.

    check_output(Path("corpus"), "--data.folder", inputs=["corpus"], own="data folder")
    # ValueError: corpus is the input itself: name another place for the output (--data.folder).

Shards beside the text that they are made of would be read as text by the next command, and be in
the way of whoever wants to delete them.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

FOLDER_MARKERS = {
    "data folder": ("manifest.json", "tokenizer.json"),
    "run": ("recipe.toml", "run.lock"),
}


def check_output_path(
    out: Path, option: str, inputs: Iterable[Path | str] = (), allowed_kind: str = ""
) -> None:
    """Raise ValueError where `out` lies in an input, an input in `out`, or `out` in one of `KINDS`.

    `option` is what names another output, `inputs` are paths and globs, and `own` is the one of
    `KINDS` that `out` itself may be already, to be continued.
    """
    place = out.expanduser().resolve()
    advice = f"name another place for the output ({option})"
    for folder in (place, *place.parents):
        for kind, names in FOLDER_MARKERS.items():
            if all((folder / name).exists() for name in names):
                if folder != place:
                    raise ValueError(f"{out} is inside {folder}, which is a {kind}: {advice}.")
                if kind != allowed_kind:
                    raise ValueError(f"{out} is a {kind}: {advice}.")
    for given in inputs:
        read, everything = _input_extent(Path(given).expanduser())
        if everything and place.is_relative_to(read):
            where = "the input itself" if place == read else f"inside the input {given}"
            raise ValueError(f"{out} is {where}: {advice}.")
        if read.is_relative_to(place):
            raise ValueError(f"{out} holds the input {given}: {advice}.")


def _input_extent(path: Path) -> tuple[Path, bool]:
    """The file or folder that a path or glob begins with; whether all that lies below is read."""
    if path.exists():
        return path.resolve(), path.is_dir()
    fixed = []
    for part in path.parts:
        if set(part) & set("*?["):
            break
        fixed.append(part)
    everything = "**" in path.parts and fnmatch("manifest.json", path.name)
    return Path(*fixed).resolve(), everything
