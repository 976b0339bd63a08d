"""Errors for gated, private and missing datasets state what to do."""

from pathlib import Path

import pytest
from tests.data.hf_hub.conftest import names
from tests.data.hf_hub.faults import status
from tests.data.hf_hub.samples import SMOLLM, STARCODER

from gnano.utils.hf_datasets import check_file, download_file, resolve_dataset

PYTHON = "python/train-00000-of-00002.parquet"


def check_content(repo, commit, file):
    check_file(repo, commit, file, "content")


def fetch(repo, commit, file):
    download_file(repo, commit, file, Path("nowhere-is-written"))


def test_a_missing_dataset_may_be_private(hub, monkeypatch):
    hub.add("me/secret", {"a.jsonl": b'{"text": "x"}\n'}, private=True)
    for repo in ("me/nothing", "me/secret"):
        with pytest.raises(ValueError, match=rf"no dataset {repo} .*if it is private, log in"):
            resolve_dataset(repo, "", "train", "main")
    monkeypatch.setenv("HF_TOKEN", "reader")
    assert names("me/secret") == ["a.jsonl"]
    with pytest.raises(ValueError, match=r"no dataset me/nothing .* check its name\.$"):
        resolve_dataset("me/nothing", "", "train", "main")


def test_a_missing_revision_is_named(hub):
    with pytest.raises(ValueError, match=r"revision/v9 does not exist: .*no such branch"):
        resolve_dataset(SMOLLM, "", "train", "v9")


def test_an_invalid_name_is_refused_before_any_request(hub):
    with pytest.raises(ValueError, match="a b/c"):
        resolve_dataset("a b/c", "", "train", "main")
    assert not hub.requests


def test_an_error_for_a_gated_dataset_links_its_license(hub):
    commit, files = resolve_dataset(STARCODER, "python", "train", "main")
    page, tokens = f"{hub.endpoint}/datasets/{STARCODER}", f"{hub.endpoint}/settings/tokens"
    for function in (check_content, fetch):
        with pytest.raises(ValueError) as refused:
            function(STARCODER, commit, files[0])
        assert str(refused.value) == (
            f"bigcode/starcoderdata is gated: accept its license at {page}, then log in with "
            f"`hf auth login` or set HF_TOKEN ({tokens})."
        )


def test_a_token_without_access_is_reported(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "stranger")
    commit, files = resolve_dataset(STARCODER, "python", "train", "main")
    with pytest.raises(ValueError, match="account of your token has no access yet: accept its"):
        check_file(STARCODER, commit, files[0], "content")


def test_a_token_reads_gated_files_and_is_sent_to_no_other_host(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "reader")
    commit, files = resolve_dataset(STARCODER, "python", "train", "main")
    check_file(STARCODER, commit, files[0], "content")
    path = download_file(STARCODER, commit, files[0], Path("got"))
    assert path == Path("got") / PYTHON
    assert path.read_bytes() == hub.repositories[STARCODER].files[PYTHON]
    assert {r.token for r in hub.requests if "/storage/" in r.path} == {""}
    assert {r.token for r in hub.requests if "/storage/" not in r.path} == {"reader"}


def test_a_saved_login_is_used(hub, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/token").write_text("reader")
    commit, files = resolve_dataset(STARCODER, "python", "train", "main")
    check_file(STARCODER, commit, files[0], "content")
    assert {r.token for r in hub.requests if "/resolve/" in r.path} == {"reader"}


def test_an_unknown_token_is_reported(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "expired")
    with pytest.raises(ValueError, match=r"not accept the token .*HF_TOKEN.*/settings/tokens"):
        resolve_dataset(SMOLLM, "cosmopedia-v2", "train", "main")


def test_other_refusals_contain_the_hubs_reason(hub):
    hub.faults["revision"] = [status(451, X_Error_Message="Not in your country.")]
    with pytest.raises(ValueError, match=r"was refused with 451 Not in your country\.$"):
        resolve_dataset(SMOLLM, "", "train", "main")


@pytest.mark.parametrize("code", [400, 401, 403, 404, 451])
def test_a_refusal_is_not_retried(hub, waits, code):
    hub.faults["revision"] = [status(code)]
    with pytest.raises(ValueError):
        resolve_dataset(SMOLLM, "", "train", "main")
    assert len(hub.requests) == 1 and not waits
