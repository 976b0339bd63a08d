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
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, errors, get_token, utils
from huggingface_hub.utils.sha import git_hash

from gnano.checkpoint.export_weights import export_weights
from gnano.checkpoint.run_checkpoints import CHECKSUMS_FILE, find_checkpoint
from gnano.export.model_card import build_model_card
from gnano.export.tensor_file import load_export_source
from gnano.utils.files import atomic_replace, atomic_write_text, check_output_path, read_text
from gnano.utils.hf_errors import HTTPError

HUB_MANAGED_FILE = ".gitattributes"  # the Hub writes it into every repository
RETRY_HINT = "the same command resumes, and sends nothing twice"
HF_UTILS: Any = utils  # its own exports are not typed as such
CARD_FILE = "README.md"
MAX_FILE_BYTES = 50_000_000_000  # the Hub accepts no larger file
HARD_LINKED_SUFFIXES = (".safetensors", ".gguf", ".onnx", ".data", ".bin")  # large, never edited
MODEL_FILE_PATTERN = re.compile(  # files of a model; others in its folder are not published
    r"(generation_)?config\.json|model\.safetensors|files\.json|tokenizer.*|vocab\.json|merges\.txt"
    r"|special_tokens_map\.json|added_tokens\.json|chat_template\..*|template\.json|README\.md"
    r"|LICENSE.*|NOTICE.*"
)


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
) -> str:
    """Fill the folder of a checkpoint, a run's newest one or a model folder, and upload it.

    Returns a line per file and the repository's URL. Raises ValueError or OSError for a problem
    with the files, or a refusal of the Hub.
    """
    word = r"\w(?:[\w.-]*\w)?"
    odd = "--" in repo or ".." in repo or repo.endswith(".git") or len(repo) > 96
    if odd or not re.fullmatch(rf"{word}/{word}", repo, re.ASCII):
        raise ValueError(
            f"{repo!r} is not the name of a repository: write USER/NAME, in letters, digits and "
            f"single -, _ and . between them, 96 characters at most."
        )
    output_folder = output_folder or Path("published") / repo.split("/")[1]
    check_output_path(output_folder, "--out", [checkpoint, *include])
    source = find_checkpoint(checkpoint)
    parts = _collect_files(source, include)
    hub = None if dry_run else HubRepo(repo, private)  # checks the token before anything is written
    _fill_folder(output_folder, source, parts)
    if not (output_folder / CARD_FILE).exists():
        card = build_model_card(source, repo, parts, license_id, languages, prompts)
        atomic_write_text(output_folder / CARD_FILE, card)
    files = {name: (output_folder / name).stat().st_size for name in sorted({*parts, CARD_FILE})}
    url = hub.upload(output_folder, files, allow_update) if hub else ""
    rows = [f"{size:>16,}  {name}" for name, size in files.items()]
    rows.append(f"{sum(files.values()):>16,}  bytes in {len(rows)} files, in {output_folder}")
    dry = "Nothing was sent. Review README.md and its license, then run without --dry-run."
    return "\n".join([*rows, url or dry])


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
        if target.exists():
            is_same = file.samefile(target) or filecmp.cmp(file, target, shallow=False)
            if not is_same and name != CHECKSUMS_FILE:  # the checkpoint's own lists more
                raise ValueError(
                    f"{target} exists and differs from {file}: name another folder (--out)."
                )
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_replace(target) as temporary:
            # large files are linked where the file system allows it
            if file.name.endswith(HARD_LINKED_SUFFIXES):
                with suppress(OSError):
                    os.link(file.resolve(), temporary)
            if not temporary.exists():
                shutil.copyfile(file, temporary)


def _visible_files(folder: Path) -> list[Path]:
    """Return a folder's files without hidden ones: keys, caches, leftovers of a stopped run."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(f for f in files if "/." not in f"/{f.relative_to(folder).as_posix()}")


class HubRepo:
    """A repository and its files when this object was made; the first `upload` creates it."""

    def __init__(self, repo: str, private: bool) -> None:
        token = get_token()
        if not token:
            raise ValueError(
                "Publishing needs a token of the Hub that may write: create one in its settings "
                "(Access Tokens), then run `hf auth login`, or set HF_TOKEN."
            )
        if not re.fullmatch(r"[!-~]+", token):  # the error about an HTTP header would print it
            raise ValueError("HF_TOKEN holds an invalid character: set it again.")
        self.repo, self.private = repo, private
        self.api = HfApi(token=token)
        # name -> SHA-256 of an LFS file, git's SHA-1 of another; None: no repository
        self.remote_files: dict[str, str] | None = None
        # it would log each failed attempt; only the last one is reported
        HF_UTILS.logging.set_verbosity_error()
        if not sys.stderr.isatty():
            HF_UTILS.disable_progress_bars()
        with self._explain_errors():
            self.user_name = str(self.api.whoami()["name"])
            with suppress(errors.RepositoryNotFoundError):
                info = self.api.model_info(repo)
                if private and not info.private:
                    raise ValueError(
                        f"{repo} exists already and is public: make it private in its settings, "
                        f"or leave --private out."
                    )
                entries: Any = self.api.list_repo_tree(repo, recursive=True)
                self.remote_files = {
                    entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id
                    for entry in entries
                    if hasattr(entry, "blob_id") and entry.path != HUB_MANAGED_FILE  # no folders
                }

    def upload(self, folder: Path, files: Mapping[str, int], allow_update: bool) -> str:
        """Commit all files, the card included, and return the repository's URL.

        Raises ValueError if that would change a file or mix files of two models, unless allowed.
        """
        added = {name: CommitOperationAdd(name, folder / name) for name in files}
        others = []
        for name, known in ({} if allow_update else self.remote_files or {}).items():
            if name in files and len(known) == 64:  # characters of a SHA-256; git's SHA-1 has 40
                own = added[name].upload_info.sha256.hex()
            else:
                own = git_hash((folder / name).read_bytes()) if name in files else ""
            if own != known:
                others.append(name)
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise ValueError(
                f"{self.repo} exists already and holds other files ({others[0]}{more}): name "
                f"another repository, or add --update to replace those of the same names."
            )
        with self._explain_errors():
            # before anything is sent: the Hub refuses a commit with a wrong license in its card
            answer = HF_UTILS.get_session().post(
                f"{self.api.endpoint}/api/validate-yaml",
                json={"content": read_text(folder / CARD_FILE), "repoType": "model"},
                headers=HF_UTILS.build_hf_headers(token=self.api.token),
            )
            if answer.status_code == 400:
                reason = "; ".join(str(e.get("message")) for e in answer.json().get("errors", []))
                raise ValueError(
                    f"The Hub rejects {folder / CARD_FILE} ({reason or 400}): correct the file."
                )
            if self.remote_files is None:
                self.api.create_repo(self.repo, private=self.private or None)
            for file in added.values():
                # one at a time in this thread: Ctrl-C need not wait for other uploads
                self.api.preupload_lfs_files(self.repo, [file], free_memory=False)
            self.api.create_commit(
                self.repo, list(added.values()), commit_message="Publish the model"
            )
        return f"{self.api.endpoint}/{self.repo}"

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Turn the client's errors into errors of one sentence."""
        try:
            yield
        except errors.OfflineModeIsEnabled:
            raise ValueError("HF_HUB_OFFLINE is set: unset it to publish.") from None
        except (HTTPError, RuntimeError) as error:
            raise self._to_readable_error(error) from None
        except JSONDecodeError:
            raise ValueError(
                f"{self.api.endpoint} does not respond as the Hub does; check HF_ENDPOINT, and "
                f"whether the network requires a login."
            ) from None
        except ValueError as error:  # the client's may have several lines
            raise ValueError(" ".join(str(error).split())) from None

    def _to_readable_error(self, error: Exception) -> Exception:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        response = getattr(cause, "response", None)
        if response is None:
            reason = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
            return ConnectionError(
                f"The Hub at {self.api.endpoint} could not be reached, or disconnected ({reason}): "
                f"check the network and HF_ENDPOINT; {RETRY_HINT}."
            )
        reason = response.headers.get("X-Error-Message") or response.reason_phrase
        reason = f"{response.status_code} {reason}".rstrip(" .")
        if response.status_code == 401:
            return ValueError(
                f"The Hub does not accept the token ({reason}): create a new one that may write, "
                f"then set HF_TOKEN or log in again with `hf auth login`."
            )
        if response.status_code == 403:
            owner = f" of {self.user_name}" if hasattr(self, "user_name") else ""
            return ValueError(
                f"The token{owner} may not write to {self.repo} ({reason}): use one that may "
                f"write, or your own repository."
            )
        if response.status_code == 429 or response.status_code >= 500:
            return ConnectionError(f"The Hub failed with {reason}; {RETRY_HINT}.")
        return ValueError(f"The Hub refused {self.repo} with {reason}.")
