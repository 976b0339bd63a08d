"""Lists the files of a repository on the Hub, and replaces them in one commit."""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, errors, get_token, utils
from huggingface_hub.utils.sha import git_hash

from gnano.utils.files import read_text

HUB_MANAGED_FILE = ".gitattributes"  # the Hub writes it into every repository
RETRY_HINT = "the same command resumes, and sends nothing twice"
HF_UTILS: Any = utils  # its own exports are not typed as such
HTTP_ERROR: Any = errors.HfHubHTTPError.__bases__[0]  # httpx or httpx2, by the client's version


class HubRepo:
    """A repository and its files when this object was made; the first `upload` creates it."""

    def __init__(self, repo: str, private: bool) -> None:
        self.repo, self.private = repo, private
        self.api = HfApi(token=_read_token())
        # it would log each failed attempt; only the last one is reported
        HF_UTILS.logging.set_verbosity_error()
        if not sys.stderr.isatty():
            HF_UTILS.disable_progress_bars()
        with self._explain_errors():
            self.user_name = str(self.api.whoami()["name"])
            self.remote_files = self._list_remote_files()

    def check_no_conflicts(self, folder: Path, files: Mapping[str, int]) -> None:
        """Raise ValueError if an upload would change a file or mix files of two models."""
        others = [
            name
            for name, known in (self.remote_files or {}).items()
            if name not in files or known != _hub_hash(folder / name, is_lfs=len(known) == 64)
        ]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            raise ValueError(
                f"{self.repo} exists already and holds other files ({others[0]}{more}): name "
                f"another repository, or add --update to replace those of the same names."
            )

    def upload(self, folder: Path, files: Mapping[str, int], card_name: str) -> str:
        """Commit all files, the card included, and return the repository's URL."""
        with self._explain_errors():
            self._validate_card(folder / card_name)
            if self.remote_files is None:
                self.api.create_repo(self.repo, private=self.private or None)
            added = [CommitOperationAdd(name, folder / name) for name in files]
            for file in added:
                # one at a time in this thread: Ctrl-C need not wait for other uploads
                self.api.preupload_lfs_files(self.repo, [file], free_memory=False)
            self.api.create_commit(self.repo, added, commit_message="Publish the model")
        return f"{self.api.endpoint}/{self.repo}"

    def _validate_card(self, path: Path) -> None:
        """Check the card before anything is sent: the Hub refuses a commit with a wrong license."""
        answer = HF_UTILS.get_session().post(
            f"{self.api.endpoint}/api/validate-yaml",
            json={"content": read_text(path), "repoType": "model"},
            headers=HF_UTILS.build_hf_headers(token=self.api.token),
        )
        if answer.status_code == 400:
            reason = "; ".join(str(e.get("message")) for e in answer.json().get("errors", []))
            raise ValueError(f"The Hub rejects {path} ({reason or 400}): correct the file.")

    def _list_remote_files(self) -> dict[str, str] | None:
        """Return name -> SHA-256 of an LFS file, git's SHA-1 of another; None: no repository."""
        try:
            public = not self.api.model_info(self.repo).private
        except errors.RepositoryNotFoundError:
            return None
        if public and self.private:
            raise ValueError(
                f"{self.repo} exists already and is public: make it private in its settings, or "
                f"leave --private out."
            )
        entries: Any = self.api.list_repo_tree(self.repo, recursive=True)
        files = [entry for entry in entries if hasattr(entry, "blob_id")]  # not the folders
        return {
            f.path: f.lfs.sha256 if f.lfs else f.blob_id
            for f in files
            if f.path != HUB_MANAGED_FILE
        }

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        """Turn the client's errors into errors of one sentence."""
        try:
            yield
        except errors.OfflineModeIsEnabled:
            raise ValueError("HF_HUB_OFFLINE is set: unset it to publish.") from None
        except (HTTP_ERROR, RuntimeError) as error:
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


def _read_token() -> str:
    token = get_token()
    if not token:
        raise ValueError(
            "Publishing needs a token of the Hub that may write: create one in its settings "
            "(Access Tokens), then run `hf auth login`, or set HF_TOKEN."
        )
    if not re.fullmatch(r"[!-~]+", token):  # the error about an HTTP header would print it
        raise ValueError("HF_TOKEN holds an invalid character: set it again.")
    return token


def _hub_hash(path: Path, is_lfs: bool) -> str:
    """Return the hash that the Hub lists: SHA-256 of an LFS file, git's of another."""
    if is_lfs:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return git_hash(path.read_bytes())
