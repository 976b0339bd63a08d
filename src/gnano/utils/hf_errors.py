"""Errors of the Hugging Face Hub: transient ones are retried, the others explained in a sentence.

    429, 5xx, no or a broken connection, timeout ─▶ wait, retry ─▶ OSError after the last attempt
    401, 403, 404 and the like                   ─▶ ValueError, immediately

The waits double, and each is drawn uniformly below that bound ("full jitter": AWS Architecture
Blog, Exponential Backoff and Jitter, 2015), so that machines that failed together do not retry
together.
"""

import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

MAX_ATTEMPTS = 6  # of an API request: about 15 s of waiting
MAX_DOWNLOAD_ATTEMPTS = 12  # of a download, without a new byte between them: about 3 minutes
BASE_DELAY_SECONDS = 1.0  # bound of the first wait
MAX_DELAY_SECONDS = 60.0  # bound of every wait
MAX_RETRY_AFTER_SECONDS = 900.0  # longest wait that a server may request

HTTPError: Any = HfHubHTTPError.__bases__[0]  # from httpx or httpx2, by the client's version
ResponseT = TypeVar("ResponseT")
sleep = time.sleep


class NotInRepositoryError(ValueError):
    """The repository and the revision exist, the file or folder does not."""


def hub_endpoint() -> str:
    """Return the address of the Hub: HF_ENDPOINT, as the client read it."""
    if not constants.ENDPOINT.startswith(("http://", "https://")):
        raise ValueError(f"HF_ENDPOINT is {constants.ENDPOINT!r}; an address starts with https://.")
    return constants.ENDPOINT


def request_with_retries(
    request: Callable[[], ResponseT],
    repo: str,
    url: str,
    max_attempts: int = MAX_ATTEMPTS,
    progress: Callable[[], int] = lambda: 0,
) -> ResponseT:
    """Call `request`, retrying transient failures up to `max_attempts` times in a row.

    The count restarts whenever `progress` has grown. Raises ValueError for a permanent failure,
    ConnectionError after the last attempt.
    """
    failures, reached = 0, progress()
    while True:
        try:
            return request()
        except OfflineModeIsEnabled:
            raise ValueError(
                f"HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, so {url} is not requested; "
                f"unset it to read {repo}."
            ) from None
        except HTTPError as error:
            response = getattr(error, "response", None)
            if response is None:
                reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            else:
                message = response.headers.get("X-Error-Message") or response.reason_phrase
                reason = f"{response.status_code} {message}".rstrip(" .")
                if response.status_code < 500 and response.status_code not in (408, 429):
                    raise _explain_refusal(response, reason, repo, url) from None
            if (now := progress()) > reached:
                failures, reached = 0, now
            failures += 1
            if failures >= max_attempts:
                if type(error).__name__.startswith("Connect"):
                    sentence = (
                        f"No connection to the Hub at {hub_endpoint()} for {url} ({reason}): check "
                        f"the network and HF_ENDPOINT"
                    )
                else:
                    sentence = (
                        f"{url} failed {failures} times in a row, the last time with {reason}"
                    )
                raise ConnectionError(
                    f"{sentence}; the same command continues where it stopped."
                ) from None
            requested = None if response is None else _retry_after(response.headers)
            if requested is not None:
                delay = min(max(requested, 0.0), MAX_RETRY_AFTER_SECONDS)
                sleep(delay + random.uniform(0, BASE_DELAY_SECONDS))
            else:
                bound = min(MAX_DELAY_SECONDS, BASE_DELAY_SECONDS * 2 ** (failures - 1))
                sleep(random.uniform(0, bound))


def _explain_refusal(response: Any, reason: str, repo: str, url: str) -> ValueError:
    """Return a permanent HTTP error as a sentence: what was refused, and what to do."""
    kind = "dataset" if "/datasets/" in url else "model"
    page = f"{hub_endpoint()}/{'datasets/' * (kind == 'dataset')}{repo}"
    tokens = f"{hub_endpoint()}/settings/tokens"
    status = response.status_code
    code = response.headers.get("X-Error-Code", "")
    with_token = "authorization" in response.request.headers
    if with_token and status == 401 and code != "GatedRepo":
        return ValueError(
            f"The Hub does not accept the token that was sent (HF_TOKEN, or else the one of "
            f"`hf auth login`): make a new one at {tokens}, then set HF_TOKEN or log in again."
        )
    if code == "GatedRepo" and with_token:
        return ValueError(
            f"{repo} is gated, and the account of your token has no access yet: accept its "
            f"license at {page} with that account; a fine-grained token must also be allowed "
            f"to read gated repositories ({tokens})."
        )
    if code == "GatedRepo":
        return ValueError(
            f"{repo} is gated: accept its license at {page}, then log in with `hf auth login` "
            f"or set HF_TOKEN ({tokens})."
        )
    if code == "RevisionNotFound":
        return ValueError(
            f"{url} does not exist: {repo} has no such branch, tag or commit (revision)."
        )
    if code == "EntryNotFound":
        return NotInRepositoryError(f"{url} does not exist: {repo} has no such file or folder.")
    if code == "RepoNotFound" or status in (401, 404):
        login = "" if with_token else "; if it is private, log in with `hf auth login`"
        return ValueError(
            f"The Hub has no {kind} {repo} ({page}) that you may read: check its name{login}."
        )
    return ValueError(f"{url} was refused with {reason}.")


def _retry_after(headers: Any) -> float | None:
    """Return the seconds that the server requests, if it does."""
    after = headers.get("Retry-After", "")
    if after.isdecimal():
        return float(after)
    # the Hub's own quota header: "api";r=0;t=55 means that no request is left for 55 seconds
    if quota := re.search(r"r=0\s*;\s*t=(\d+)", headers.get("RateLimit", "")):
        return float(quota[1])
    try:
        return (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return None
