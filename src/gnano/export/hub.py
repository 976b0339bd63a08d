"""A repository on the Hub: what is in it, and how all of it changes at once.

Its client does the work; what goes wrong on the way becomes a sentence.
"""

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from gnano.utils.text import read_text

THEIRS = ".gitattributes"  # the Hub writes it into every repository
AGAIN = "the same command goes on, and sends nothing twice"


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

    def send(self, folder: Path, files: Mapping[str, int], card: str) -> str:
        """All of it in one commit, `card` among it; returns its address."""
        with self._explained():
            self._check_card(folder / card)
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
        utils, body = _client("huggingface_hub.utils"), read_text(path)
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
