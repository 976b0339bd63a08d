"""Requests share the model fairly: hang-ups free their place, a fault ends one request only."""

import json
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from tests.serve.server_process import SLOW_STEPS, ServerProcess, serve, wait_for

from gnano.checkpoint.run_checkpoints import find_checkpoint

NO_END = {"299": -100}
LONG = {"prompt": "a", "max_tokens": 100, "logit_bias": NO_END, "model": "small"}
# logits of one row that are not finite, and a step that raises an error
FAULTS = """
from gnano.infer import continuous_batching as batching
sample, step = batching.sample_tokens, batching.ContinuousBatch.step
def sample_tokens(logits_BV, params, *rest):
    rows = [row for row, one in enumerate(params) if one.top_k == 111_111]
    logits_BV = logits_BV.clone()
    logits_BV[rows] = float("nan")
    return sample(logits_BV, params, *rest)
def failing_step(self, *rest, **options):
    if any(s.request.sampling.top_k == 222_222 for s in self.active):
        raise RuntimeError("planted")
    return step(self, *rest, **options)
batching.sample_tokens = sample_tokens
batching.ContinuousBatch.step = failing_step
"""


@pytest.fixture(scope="module")
def slow_server(runs, tmp_path_factory):
    """A server of two rows and a queue of three, whose steps take 50 ms; `long` has 2,048 ids."""
    folder = tmp_path_factory.mktemp("models") / "long"
    source = find_checkpoint(runs / "small")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("trainer", "files.json"))
    for name in ("config.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(": 128", ": 2048"))
    options = ("--parallel", 2, "--queue", 3)
    with ServerProcess(runs / "small", folder, *options, program=SLOW_STEPS) as process:
        yield process


def send(server, **fields):
    """Send a request over a socket, and return the socket."""
    body = json.dumps(LONG | fields).encode()
    connection = socket.create_connection((server.host, server.port), timeout=20)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def counts(server, model="small"):
    names = ("gnano_texts_running", "gnano_texts_waiting")
    return tuple(server.metric(name, model=model) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_a_hang_up_frees_the_place_of_running_and_waiting_texts(slow_server, stream):
    connections = [send(slow_server, stream=stream) for _ in range(4)]
    wait_for(lambda: counts(slow_server) == (2, 2))
    connections.pop().close()  # waits
    wait_for(lambda: counts(slow_server) == (2, 1))
    connections.pop(0).close()  # runs
    wait_for(lambda: counts(slow_server) == (2, 0))
    for connection in connections:
        connection.close()
    wait_for(lambda: counts(slow_server) == (0, 0))
    assert slow_server.metric("gnano_requests_total", code="499") >= 4


@pytest.mark.slow
def test_a_hang_up_during_a_long_prompt_frees_the_place_and_changes_no_text(slow_server):
    given = {"model": "long", "max_tokens": 40, "seed": 1}
    alone = slow_server.post("/v1/completions", **LONG | given).json()["choices"]
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(slow_server.post, "/v1/completions", **LONG | given)
        wait_for(lambda: counts(slow_server, "long") == (1, 0))
        with send(slow_server, model="long", prompt=[5] * 2_000):  # eight steps of its prompt
            wait_for(lambda: counts(slow_server, "long") == (1, 1))
        wait_for(lambda: counts(slow_server, "long") == (1, 0))
        assert running.result(30).json()["choices"] == alone


@pytest.mark.slow
def test_the_beginning_of_a_prompt_is_computed_once(slow_server):
    given = LONG | {"model": "long", "prompt": [7] * 300, "max_tokens": 5, "temperature": 0}
    first, second = (slow_server.post("/v1/completions", **given).json() for _ in range(2))
    cached = [one["usage"]["prompt_tokens_details"]["cached_tokens"] for one in (first, second)]
    assert cached == [0, 256] and first["choices"] == second["choices"]
    assert slow_server.metric("gnano_cached_tokens_total", model="long") == 256


@pytest.mark.slow
def test_more_requests_than_the_queue_holds_are_told_to_come_back(slow_server):
    connections = [send(slow_server) for _ in range(5)]
    wait_for(lambda: counts(slow_server) == (2, 3))
    refused = slow_server.post("/v1/completions", **LONG)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    assert slow_server.post("/v1/completions", **LONG, n=6).json()["error"]["param"] == "n"
    # OpenAI's client comes back by itself
    client = openai.OpenAI(base_url=f"{slow_server.url}/v1", api_key="none", max_retries=5)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(
            client.completions.create, model="small", prompt="a", max_tokens=2, logit_bias=NO_END
        )
        time.sleep(0.5)
        for connection in connections:
            connection.close()
        usage = answer.result(30).usage
        assert usage is not None and usage.completion_tokens == 2


@pytest.mark.slow
def test_a_fault_ends_one_request_and_the_server_lives(runs):
    with serve(runs, program=FAULTS) as server:
        given = LONG | {"max_tokens": 60, "seed": 5}
        alone = server.post("/v1/completions", **given).json()["choices"][0]["text"]
        results = {}

        def ask(name, **fields):
            results[name] = server.post("/v1/completions", **given | fields)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
        threads.append(threading.Thread(target=ask, args=("bad",), kwargs={"top_k": 111_111}))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results["bad"].status_code == 500
        assert results["bad"].json()["error"]["type"] == "server_error"
        assert [results[n].json()["choices"][0]["text"] for n in range(3)] == [alone] * 3
        # a step that fails as a whole ends what is in it, and nothing else
        assert server.post("/v1/completions", **LONG, top_k=222_222).status_code == 500
        create = server.openai.completions.create
        stream = create(model="small", prompt="a", stream=True, extra_body={"top_k": 222_222})
        with pytest.raises(openai.APIError, match="failed"):
            list(stream)
        assert server.post("/v1/completions", **given).json()["choices"][0]["text"] == alone
        assert server.metric("gnano_failed_steps_total") == 2


@pytest.mark.slow
def test_many_mixed_requests_get_the_right_texts(server):
    """Of 200 requests, 32 at once, a tenth is invalid and a tenth hangs up."""

    def text(seed):
        body = {
            "model": "small",
            "prompt": "a",
            "max_tokens": 30,
            "seed": seed,
            "logit_bias": NO_END,
        }
        return server.post("/v1/completions", **body)

    alone = {seed: text(seed).json()["choices"][0]["text"] for seed in range(8)}

    def ask(number):
        if number % 10 == 0:
            return server.post("/v1/completions", prompt="a", n=99).status_code == 400
        if number % 10 == 1:
            with send(server, stream=number % 20 == 1) as connection:
                time.sleep(0.01)
            return connection is not None
        response = text(number % 8)
        return response.status_code == 200 and (
            response.json()["choices"][0]["text"] == alone[number % 8]
        )

    memory = []
    for _ in range(16):
        with ThreadPoolExecutor(32) as threads:
            assert all(threads.map(ask, range(200)))
        wait_for(lambda: counts(server) == (0, 0))
        memory.append(server.metric("gnano_resident_bytes"))
        if len(memory) > 3 and memory[-1] - memory[-4] < 1e6:
            break  # the first rounds fill caches, and the last ones add nothing
    else:
        pytest.fail(f"resident memory grows with each round: {memory}")
    assert server.metric("gnano_failed_steps_total") == 0
    codes = ("500", "503", "504")
    assert not any(server.metric("gnano_requests_total", code=code) for code in codes)
