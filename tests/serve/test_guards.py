"""Nobody gets in who should not: names, pages of others, keys and large bodies."""

from http.client import HTTPConnection

import pytest
from tests.cli.runner import error_sentence
from tests.serve.server_process import serve

from gnano.serve.app import PAGE

KEY = {"authorization": "Bearer secret-1"}
ASK = {"prompt": "a", "max_tokens": 1}


@pytest.fixture(scope="module")
def guarded(runs, tmp_path_factory):
    """A server with two keys, one allowed origin and one allowed name."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text("secret-1\nsecret-2\n")
    with serve(
        runs,
        *("--api-key-file", keys, "--allow-origin", "https://app.example"),
        *("--allow-host", "gpu.example", "--max-body-mb", "0.01"),
    ) as process:
        yield process


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost", 200),
        ("[::1]:{port}", 200),
        ("192.168.1.7:80", 200),
        ("GPU.example:443", 200),
        ("evil.example", 403),
        ("127.0.0.1.nip.io", 403),
        ("localhost.evil.example:{port}", 403),
        ("", 403),
    ],
)
def test_only_known_names_are_answered(guarded, host, status):
    """A page whose name was bound to this address sends its own name."""
    headers = {"host": host.format(port=guarded.port)}
    assert guarded.http.get("/health", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("{url}", 200),
        ("https://app.example", 200),
        ("http://app.example", 403),
        ("https://app.example.evil", 403),
        ("http://localhost:1", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_only_allowed_pages_may_ask(guarded, origin, status):
    headers = {"origin": origin.format(url=guarded.url), **KEY}
    response = guarded.http.post("/v1/completions", json=ASK, headers=headers)
    assert response.status_code == status
    allowed = response.headers.get("access-control-allow-origin")
    assert allowed == (origin if origin == "https://app.example" else None)
    assert "access-control-allow-credentials" not in response.headers


def test_a_preflight_needs_no_key_but_an_allowed_origin(guarded):
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-os",
    }
    for origin, status in (("https://app.example", 204), ("https://evil.example", 403)):
        response = guarded.http.options("/v1/completions", headers={"origin": origin, **asked})
        assert response.status_code == status
        given = response.headers.get("access-control-allow-headers")
        assert (given is not None and "x-stainless-os" in given) == (status == 204)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer secret-1", 200),
        ("bearer secret-2", 200),
        ("Bearer secret-3", 401),
        ("Bearer", 401),
        ("Bearer secret-1é", 401),
        ("Basic secret-1", 401),
        (None, 401),
    ],
)
def test_only_a_key_opens_the_api(guarded, authorization, status):
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    for path in ("/v1/models", "/metrics", "/api/runs", "/openapi.json"):
        response = guarded.http.get(path, headers=headers)
        assert response.status_code == status
    if status == 401:
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert guarded.http.get("/health", headers=headers).status_code == 200
        assert guarded.http.get("/page/x.js", headers=headers).status_code == 404


def test_no_path_leaves_the_folder_of_the_page(guarded):
    pages = ("../guards.py", "%2e%2e/guards.py", "..%2fguards.py", "/etc/passwd", "%00")
    names = ("..", "%2e%2e/small", "/etc", "small/../small", "small%00")
    paths = [f"/page/{name}" for name in pages] + [f"/api/runs/{name}/metrics" for name in names]
    for path in (*paths, "/v1/models/../../etc/passwd"):
        connection = HTTPConnection(guarded.host, guarded.port)  # sends the path as it is
        connection.request("GET", path, headers=KEY)
        assert connection.getresponse().status == 404, path


def test_a_large_body_is_refused_with_or_without_its_length(guarded):
    body = b'{"prompt": "' + b"a" * 20_000 + b'"}'
    for content in (body, iter([body])):
        response = guarded.http.post("/v1/completions", content=content, headers=KEY)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"


def test_a_request_keeps_its_id_and_its_log_line_has_no_contents(guarded):
    headers = {"x-request-id": "mine-1", **KEY}
    body = {"prompt": "a private text", "max_tokens": 1}
    response = guarded.http.post("/v1/completions", json=body, headers=headers)
    assert response.headers["x-request-id"] == "mine-1"
    forged = guarded.http.get("/health%0aFORGED", headers={"x-request-id": "a b\tc"})
    assert forged.headers["x-request-id"] != "a b\tc"
    lines = [line for line in guarded.log if "mine-1" in line]
    assert len(lines) == 1 and " 200 POST /v1/completions small-sft " in lines[0]
    log = "".join(guarded.log)
    assert "private" not in log and "secret" not in log and "\nFORGED" not in log


def test_an_address_of_other_machines_needs_a_key_or_consent(capsys):
    error = error_sentence(capsys, "serve", "nothing", "--host", "0.0.0.0")
    assert "--api-key-file" in error and "--open" in error


@pytest.mark.skipif(not PAGE.is_dir(), reason="this checkout has no page")
def test_the_page_needs_no_key_and_may_only_load_its_own_files(guarded):
    paths = [path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()]
    assert paths
    for path in ("/", *(f"/page/{path}" for path in paths)):
        response = guarded.http.get(path)
        assert response.status_code == 200 and response.headers["etag"], path
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-content-type-options"] == "nosniff"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        again = guarded.http.get(path, headers={"if-none-match": response.headers["etag"]})
        assert again.status_code == 304 or path == "/"
