"""Slow, half and silent clients are cut, and a signal ends the server in order."""

import json
import shutil
import signal
import socket
import threading
import time
from http.client import HTTPConnection

import pytest
from tests.serve.server_process import SLOW_STEPS, ServerProcess, serve, wait_for

SHORT_LIMITS = """
from gnano.serve import guards, http_server
http_server.HEADER_SECONDS = guards.BODY_SECONDS = 0.5
http_server.STALL_SECONDS = 1.0
"""


@pytest.fixture(scope="module")
def hurried(runs, tmp_path_factory):
    """A server with short time limits and slow steps, and a run with a long log."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "run").mkdir()
    shutil.copy(runs / "small/recipe.toml", folder / "run")
    line = json.dumps({"step": 1, "note": "x" * 20_000})
    (folder / "run/metrics.jsonl").write_text(f"{line}\n" * 150)
    options = ("--timeout", "0.5", "--runs", folder)
    with serve(runs, *options, program=SHORT_LIMITS + SLOW_STEPS) as process:
        yield process


LONG = {"prompt": "a", "max_tokens": 100, "logit_bias": {"299": -100}}


def connect(server):
    return socket.create_connection((server.host, server.port), timeout=20)


def is_cut(connection):
    """Return whether the server ends a connection without an answer."""
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True


@pytest.mark.slow
def test_clients_that_do_not_finish_a_request_are_cut(hurried):
    server = hurried
    for start in (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: "):
        with connect(server) as connection:
            connection.sendall(start)
            assert is_cut(connection), start
    with connect(server) as connection:  # a byte at a time does not extend the limit
        started = time.monotonic()
        with pytest.raises(ConnectionError):
            for letter in b"GET /health HTTP/1.1\r\n" * 100:
                connection.sendall(bytes([letter]))
                time.sleep(0.05)
        assert time.monotonic() - started < 10
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
    with connect(server) as connection:
        connection.sendall(head)
        assert connection.recv(1_000).startswith(b"HTTP/1.1 408")
    kept = HTTPConnection(server.host, server.port)
    for _ in range(2):
        kept.request("GET", "/health")
        assert kept.getresponse().read() == b'{"status":"ok"}'
    with connect(server) as connection:
        connection.sendall(b"not http\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 400")


@pytest.mark.slow
def test_a_client_that_does_not_read_is_cut(hurried):
    path = "/api/runs/run/metrics"
    size = len(hurried.http.get(path).content)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((hurried.host, hurried.port))
        ask = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        connection.sendall(8 * ask)  # more than the buffers of the system hold
        seen = 0
        while seen != (seen := sum(path in line for line in hurried.log)) or seen < 2:
            time.sleep(2.5)  # nothing happens for longer than the limit
        connection.settimeout(10)
        received = 0
        try:
            while part := connection.recv(65_536):
                received += len(part)
        except ConnectionError:
            pass
        assert received < 8 * size


@pytest.mark.slow
def test_a_signal_lets_open_requests_finish_and_refuses_new_ones(runs):
    with serve(runs, program=SLOW_STEPS) as server:
        found = []
        ask = threading.Thread(
            target=lambda: found.append(server.post("/v1/completions", **LONG, seed=1).json())
        )
        ask.start()
        wait_for(lambda: server.metric("gnano_texts_running"))
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: server.http.get("/health").status_code == 503)
        refused = server.post("/v1/completions", **LONG)
        assert refused.status_code == 503 and refused.headers["retry-after"]
        ask.join()
        assert found[0]["choices"][0]["finish_reason"] == "length"
        assert server.process.wait(20) == 0
        assert "Traceback" not in "".join(server.log)


@pytest.mark.slow
def test_the_time_to_finish_is_limited_and_the_stream_says_so(runs):
    with serve(runs, "--drain-s", "0.2", program=SLOW_STEPS) as server:
        with server.http.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGINT)
            events = [line.removeprefix("data: ") for line in lines if line]
        assert json.loads(events[-1])["error"]["code"] == "stopping"
        assert server.process.wait(20) == 0


@pytest.mark.slow
def test_a_second_signal_stops_at_once(runs):
    body = LONG | {"stream": True}
    with (
        serve(runs, program=SLOW_STEPS) as server,
        server.http.stream("POST", "/v1/completions", json=body) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: any("second signal" in line for line in server.log))
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(5) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_request_that_takes_too_long_ends_with_an_error(hurried):
    late = hurried.post("/v1/completions", **LONG)
    assert late.status_code == 504 and late.headers["x-should-retry"] == "false"
    assert late.json()["error"]["code"] == "timeout"
    assert hurried.metric("gnano_texts_running") == 0
    assert hurried.post("/v1/completions", prompt="a", max_tokens=1).status_code == 200


def test_a_port_in_use_and_a_missing_model_are_one_sentence(runs, server):
    for arguments in ((runs / "small", "--port", server.port), (runs / "none",), ()):
        with pytest.raises(RuntimeError) as refused:
            ServerProcess(*arguments)
        assert str(refused.value).count("\n") == 1 and "Traceback" not in str(refused.value)
