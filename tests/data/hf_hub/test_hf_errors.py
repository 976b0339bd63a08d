"""Transient errors are retried; others, and the last, are one clear sentence."""

import huggingface_hub.constants
import pytest
from tests.data.hf_hub.conftest import names
from tests.data.hf_hub.faults import stall, status, wrong
from tests.data.hf_hub.hub_server import make_impatient
from tests.data.hf_hub.samples import DOLLY

from gnano.utils import hf_errors
from gnano.utils.hf_datasets import check_file, download_file, resolve_dataset


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_transient_errors_are_retried(hub, waits, tmp_path, code):
    trouble = [status(code), status(code)]
    hub.faults = {"revision": trouble, "tree": trouble[:], "resolve": trouble[:]}
    commit, files = resolve_dataset(DOLLY, "", "train", "main")
    check_file(DOLLY, commit, files[0], "response")
    hub.faults["storage"] = [status(code)] * 3
    download_file(DOLLY, commit, files[0], tmp_path)
    assert len(waits) == 9


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "7"}, 7),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry_After": "Fri, 01 Jan 2100 00:00:00 GMT"}, hf_errors.MAX_RETRY_AFTER_SECONDS),
        ({"Retry_After": "Fri, 01 Jan 2010 00:00:00 GMT"}, 0),
    ],
)
def test_a_retry_after_header_is_respected(hub, waits, headers, seconds):
    hub.faults["revision"] = [status(429, **headers)]
    assert names(DOLLY)
    assert len(waits) == 1 and seconds <= waits[0] <= seconds + hf_errors.BASE_DELAY_SECONDS


def test_waits_grow_up_to_a_bound(hub, waits, monkeypatch, tmp_path):
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    commit, files = resolve_dataset(DOLLY, "", "train", "main")
    hub.faults["resolve"] = [status(503)] * 20
    with pytest.raises(ConnectionError, match=r"/resolve/.* failed 12 times .*503 Service"):
        download_file(DOLLY, commit, files[0], tmp_path)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


def test_the_final_error_names_address_reason_and_next_step(hub, waits):
    hub.faults["tree"] = [status(500)] * 6
    with pytest.raises(ConnectionError) as error:
        resolve_dataset(DOLLY, "", "train", "main")
    commit = hub.repositories[DOLLY].revisions["main"]
    assert str(error.value) == (
        f"{hub.endpoint}/api/datasets/{DOLLY}/tree/{commit}?recursive=True failed 6 times in a "
        f"row, the last time with 500 Internal Server Error; the same command continues where it "
        f"stopped."
    )


@pytest.mark.slow
def test_a_silent_server_is_retried_after_a_timeout(hub, waits, tmp_path, monkeypatch):
    make_impatient(monkeypatch)
    hub.faults = {"revision": [stall(2)], "tree": [stall(2)]}
    commit, files = resolve_dataset(DOLLY, "", "train", "main")
    hub.faults = {"storage": [stall(2)]}
    check_file(DOLLY, commit, files[0], "response")
    assert len(waits) == 3


def test_a_missing_network_is_reported(hub, waits, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"^No connection to the Hub at http://127.0.0.1:9 "):
        resolve_dataset(DOLLY, "", "train", "main")
    assert len(waits) == hf_errors.MAX_ATTEMPTS - 1


def test_an_address_without_https_is_named(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "huggingface.co")
    with pytest.raises(ValueError, match=r"HF_ENDPOINT is 'huggingface\.co'"):
        resolve_dataset(DOLLY, "", "train", "main")


def test_a_login_page_is_not_taken_for_the_hub(hub):
    hub.faults["revision"] = [wrong(b"<html>")]
    with pytest.raises(ValueError, match="does not answer as the Hub does; check HF_ENDPOINT"):
        resolve_dataset(DOLLY, "", "train", "main")


def test_offline_mode_is_named(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"HF_HUB_OFFLINE .*is set, so .* is not requested"):
        resolve_dataset(DOLLY, "", "train", "main")
    assert not hub.requests
