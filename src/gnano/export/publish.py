"""How does a model reach the Hub? As a folder to look at first, then as one commit.

    checkpoint ─┬─ the model's files ─┐
    --include ──┴─────────────────────┼─▶ published/NAME ─▶ large files, one by one ─▶ one commit
    the run ───── README.md, the card ┘

The folder is kept: a card that its author has edited goes up as it is, and a second run finds
everything in its place. Large files reach the Hub's storage before the commit that names them,
so the repository shows all of it or nothing; storage knows them by their hash, so a run after
a broken one does not send again what has arrived.
"""

import filecmp
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from gnano.export.card import card
from gnano.export.source import open_source
from gnano.train import find_checkpoint, weights_only

CARD = "README.md"
HASHES = "files.json"  # of our checkpoints
LARGEST = 50_000_000_000  # bytes: the Hub takes no larger file
LINKED = (".safetensors", ".gguf", ".onnx", ".data", ".bin")  # large, and never edited by hand
MODEL = re.compile(  # what a model needs; all else in a folder is nobody's business
    r"(generation_)?config\.json|model\.safetensors|files\.json|tokenizer.*|vocab\.json|merges\.txt"
    r"|special_tokens_map\.json|added_tokens\.json|chat_template\..*|template\.json|README\.md"
    r"|LICENSE.*|NOTICE.*"
)
THEIRS = ".gitattributes"  # the Hub writes it into every repository
AGAIN = "the same command goes on, and sends nothing twice"


@dataclass(frozen=True)
class Published:
    folder: Path
    files: dict[str, int]  # name -> bytes
    url: str  # "" where nothing was sent

    def __str__(self) -> str:
        rows = [f"{size:>16,}  {name}" for name, size in self.files.items()]
        total = f"{sum(self.files.values()):>16,}  bytes in {len(rows)} files, in {self.folder}"
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
    license: str = "",
    languages: Sequence[str] = (),
    prompts: Sequence[str] = (),
    include: Sequence[Path] = (),
    out: Path | None = None,
    update: bool = False,
    dry_run: bool = False,
) -> Published:
    """Make the folder of a checkpoint, a run's newest one or a model folder, and send it.

    Raises ValueError or OSError, in a sentence, for what is wrong here or refused there.
    """
    _check_name(repo)
    source = find_checkpoint(checkpoint)
    parts = _parts(source, include)
    out = out or Path("published") / repo.split("/")[1]
    hub = None if dry_run else Hub(repo, private)
    _fill(out, source, parts)
    if not (out / CARD).exists():
        _write(out / CARD, card(source, repo, parts, license, languages, prompts))
    files = {name: (out / name).stat().st_size for name in sorted({*parts, CARD})}
    if hub is None:
        return Published(out, files, "")
    if not update:
        hub.refuse_others(out, files)
    return Published(out, files, hub.send(out, files))


def _check_name(repo: str) -> None:
    word = r"\w(?:[\w.-]*\w)?"
    odd = "--" in repo or ".." in repo or repo.endswith(".git") or len(repo) > 96
    if odd or not re.fullmatch(rf"{word}/{word}", repo, re.ASCII):
        raise ValueError(
            f"{repo!r} is no name of a repository: write USER/NAME, in letters, digits and single "
            f"-, _ and . between them, 96 characters at most."
        )


def _parts(source: Path, include: Sequence[Path]) -> dict[str, Path]:
    """Name in the repository -> file, of all but a card that is still to be written."""
    open_source(source)  # a model, whole, with its tokenizer
    found = {p.name: p for p in source.iterdir() if p.is_file() and MODEL.fullmatch(p.name)}
    for path in include:
        if not path.exists():
            raise FileNotFoundError(f"There is no {path} to include: export it first, or name it.")
        for file in [path] if path.is_file() else _visible(path):
            name = file.relative_to(path.parent).as_posix()
            if name in found:
                raise ValueError(
                    f"Two files would be {name}: {found[name]} and {file}; rename one."
                )
            found[name] = file
    for name, file in found.items():
        if (size := file.stat().st_size) > LARGEST:
            raise ValueError(
                f"{file} has {size / 1e9:.1f} GB, and the Hub takes files of {LARGEST / 1e9:.0f} "
                f"at most: leave {name} out, or make it smaller."
            )
    return dict(sorted(found.items()))


def _fill(out: Path, source: Path, parts: Mapping[str, Path]) -> None:
    """Put all parts in their places; what is there already must be the same, and nothing else."""
    for file in _visible(out):
        if file.relative_to(out).as_posix() not in {*parts, CARD}:
            raise ValueError(
                f"{out} holds {file.relative_to(out)}, which is not to be published: take it out, "
                f"add it (--include), or name another folder (--out)."
            )
    if (source / HASHES).is_file() and not out.exists():
        weights_only(source, out)  # holds every byte against its checksum
    for name, file in parts.items():
        target = out / name
        if name == HASHES and target.exists():  # of the checkpoint it lists more
            continue
        if not target.exists():
            _bring(file, target)
        elif not (file.samefile(target) or filecmp.cmp(file, target, shallow=False)):
            raise ValueError(
                f"{target} is there and is another file than {file}: delete {out}, or name "
                f"another folder (--out)."
            )


def _visible(folder: Path) -> list[Path]:
    """Its files, without what is hidden: keys, caches, what a stopped run has left."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(f for f in files if "/." not in f"/{f.relative_to(folder).as_posix()}")


def _bring(file: Path, target: Path) -> None:
    """Whole or not at all; a large file takes no room twice where the file system can link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        if not file.name.endswith(LINKED):
            raise OSError
        os.link(file.resolve(), partial)
    except OSError:
        shutil.copyfile(file, partial)
    partial.replace(target)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)


class Hub:
    """A repository there, as it was when we came; made only when there is something to send."""

    def __init__(self, repo: str, private: bool) -> None:
        self.hub, self.errors = _client("huggingface_hub"), _client("huggingface_hub.errors")
        self.repo, self.private = repo, private
        self.api = self.hub.HfApi(token=self._token())
        utils = _client("huggingface_hub.utils")
        utils.logging.set_verbosity_error()  # each try that fails; we speak when it gives up
        if not sys.stderr.isatty():
            utils.disable_progress_bars()
        with self._explained():
            self.name = str(self.api.whoami()["name"])
            self.there = self._list()

    def refuse_others(self, folder: Path, files: Mapping[str, int]) -> None:
        """Raises ValueError where sending would change a file or join files of another model."""
        others = [
            name
            for name, known in (self.there or {}).items()
            if name not in files or known != _hash(folder / name, lfs=len(known) == 64)
        ]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise ValueError(
                f"{self.repo} is there already and holds other files ({others[0]}{more}): name "
                f"another repository, or add --update to replace those of the same names."
            )

    def send(self, folder: Path, files: Mapping[str, int]) -> str:
        """All of it in one commit; returns its address."""
        with self._explained():
            self._check_card(folder / CARD)
            if self.there is None:
                self.api.create_repo(self.repo, private=self.private or None)
            added = [self.hub.CommitOperationAdd(name, folder / name) for name in files]
            for file in added:
                # one by one in this thread: Ctrl-C need not wait for other uploads
                self.api.preupload_lfs_files(self.repo, [file], free_memory=False)
            self.api.create_commit(self.repo, added, commit_message="Publish the model")
        return f"{self.api.endpoint}/{self.repo}"

    def _check_card(self, path: Path) -> None:
        """Before anything is sent: the Hub refuses a commit for a licence that it does not know."""
        utils, body = _client("huggingface_hub.utils"), path.read_text("utf-8")
        answer = utils.get_session().post(
            f"{self.api.endpoint}/api/validate-yaml",
            json={"content": body, "repoType": "model"},
            headers=utils.build_hf_headers(token=self.api.token),
        )
        if answer.status_code == 400:
            said = "; ".join(str(e.get("message")) for e in answer.json().get("errors", []))
            raise ValueError(f"The Hub does not take {path} ({said or 400}): mend it there.")

    def _token(self) -> str:
        token = self.hub.get_token()
        if not token:
            raise ValueError(
                "Publishing needs a token of the Hub that may write: make one in your settings "
                "there (Access Tokens), then `hf auth login`, or set HF_TOKEN."
            )
        if not re.fullmatch(r"[!-~]+", token):  # an error about a header would show it
            raise ValueError("HF_TOKEN holds a character that no token has: set it again.")
        return str(token)

    def _list(self) -> dict[str, str] | None:
        """Name -> SHA-256 of a large file, or git's SHA-1 of another; None: no such repository."""
        try:
            public = not self.api.model_info(self.repo).private
        except self.errors.RepositoryNotFoundError:
            return None
        if public and self.private:
            raise ValueError(
                f"{self.repo} is there already and is public: make it private in its settings, or "
                f"leave --private out."
            )
        entries = self.api.list_repo_tree(self.repo, recursive=True)
        files = [entry for entry in entries if hasattr(entry, "blob_id")]  # and no folder
        return {f.path: f.lfs.sha256 if f.lfs else f.blob_id for f in files if f.path != THEIRS}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What goes wrong on the way, as a sentence."""
        transport: Any = self.errors.HfHubHTTPError.__bases__[0]  # of the HTTP library under it
        try:
            yield
        except self.errors.OfflineModeIsEnabled:
            raise ValueError("HF_HUB_OFFLINE is set: unset it to publish.") from None
        except (transport, RuntimeError) as error:
            raise self._sentence(error) from None
        except JSONDecodeError:
            raise ValueError(
                f"{self.api.endpoint} does not answer as the Hub does; check HF_ENDPOINT, and "
                f"whether the network wants a login."
            ) from None
        except ValueError as error:  # the client's may have several lines
            raise ValueError(" ".join(str(error).split())) from None

    def _sentence(self, error: Exception) -> Exception:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        response = getattr(cause, "response", None)
        if response is None:
            said = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
            return ConnectionError(
                f"The Hub at {self.api.endpoint} could not be reached, or broke off ({said}): "
                f"check the network and HF_ENDPOINT; {AGAIN}."
            )
        said = response.headers.get("X-Error-Message") or response.reason_phrase
        said = f"{response.status_code} {said}".rstrip(" .")
        if response.status_code == 401:
            return ValueError(
                f"The Hub does not accept the token ({said}): make a new one that may write, then "
                f"set HF_TOKEN or log in again with `hf auth login`."
            )
        if response.status_code == 403:
            whose = f" of {self.name}" if hasattr(self, "name") else ""
            return ValueError(
                f"The token{whose} may not write to {self.repo} ({said}): take one that may write, "
                f"or a repository of yours."
            )
        if response.status_code == 429 or response.status_code >= 500:
            return ConnectionError(f"The Hub failed with {said}; {AGAIN}.")
        return ValueError(f"The Hub refused {self.repo} with {said}.")


def _client(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise ValueError(
            "Publishing needs huggingface_hub: pip install 'auto-g-nano[data]'."
        ) from None


def _hash(path: Path, lfs: bool) -> str:
    """As the Hub lists a file: SHA-256 of a large one, git's hash of another."""
    if lfs:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
