"""Every invalid field is code 400 with the field's name; nothing of a client is a 422 or 5xx."""

import json
import random
import re
import subprocess
import sys

import pytest

from gnano.serve.api_schema import openapi_document

COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
SAMPLING = [
    ("temperature", -1),
    ("temperature", 2.1),
    ("temperature", "hot"),
    ("temperature", True),
    ("top_p", -0.1),
    ("top_p", 1.1),
    ("top_p", 1e999),
    ("top_k", -1),
    ("top_k", 1.5),
    ("min_p", 2),
    ("repetition_penalty", 0),
    ("presence_penalty", 3),
    ("frequency_penalty", -3),
    ("seed", 2**63),
    ("seed", 1.5),
    ("n", 0),
    ("n", 17),
    ("n", "two"),
    ("stream", "yes"),
    ("stream", 1),
    ("stop", ["a"] * 5),
    ("stop", [""]),
    ("stop", 7),
    ("stop", [None]),
    ("logit_bias", [1]),
    ("logit_bias", {"x": 1}),
    ("logit_bias", {"1": 101}),
    ("logit_bias", {"1": "a"}),
    ("logit_bias", {"1": 1, "01": 1}),
    ("logit_bias", {"300": 1}),
    ("logit_bias", {"99999999999999": 1}),
    ("stream_options", {"include_usage": True}),
    ("tools", [{"type": "function"}]),
    ("response_format", {"type": "json_object"}),
    ("model", 5),
]
INVALID = [
    *((COMPLETION, *one) for one in SAMPLING),
    *((CHAT, *one) for one in SAMPLING),
    (COMPLETION, "prompt", None),
    (COMPLETION, "prompt", 5),
    (COMPLETION, "prompt", []),
    (COMPLETION, "prompt", [1, "a"]),
    (COMPLETION, "prompt", [[1], [True]]),
    (COMPLETION, "prompt", [300]),
    (COMPLETION, "prompt", [-1]),
    (COMPLETION, "prompt", [[]]),
    (COMPLETION, "prompt", {"text": "a"}),
    (COMPLETION, "prompt", ["a"] * 1_025),
    (COMPLETION, "max_tokens", -1),
    (COMPLETION, "logprobs", 11),
    (COMPLETION, "logprobs", True),
    (COMPLETION, "echo", "no"),
    (COMPLETION, "best_of", 0),
    (COMPLETION, "suffix", "end"),
    (CHAT, "messages", None),
    (CHAT, "messages", []),
    (CHAT, "messages", "hi"),
    (CHAT, "messages", [5]),
    (CHAT, "messages", [{"role": "user"}]),
    (CHAT, "messages", [{"role": "tool", "content": "a"}]),
    (CHAT, "messages", [{"role": ["user"], "content": "a"}]),
    (CHAT, "messages", [USER, {"role": "assistant", "content": "a"}]),
    (CHAT, "messages", [USER, USER]),
    (CHAT, "messages", [{"role": "user", "content": [{"type": "image_url"}]}]),
    (CHAT, "messages", [{"role": "system", "content": 5}, USER]),
    (CHAT, "max_tokens", 0),
    (CHAT, "max_completion_tokens", "all"),
    (CHAT, "logprobs", 3),
    (CHAT, "top_logprobs", 2),
]


def check_error(response, status=400):
    error = response.json()["error"]
    assert response.status_code == status, response.text
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].endswith(".") and response.headers["x-request-id"]
    return error


def test_every_invalid_field_is_named(server):
    for path, field, value in INVALID:
        valid = {"messages": [USER]} if path == CHAT else {"prompt": "a"}
        body = json.dumps({**valid, "max_tokens": 1, field: value})
        error = check_error(server.http.post(path, content=body))
        assert error["param"] == field, (path, field, value, error)
        assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options"),
        ({"stream": True, "stream_options": 5}, "stream_options"),
        ({"prompt": ["a"] * 100}, "n"),
    ],
)
def test_fields_that_do_not_fit_together_are_named(server, fields, param):
    error = check_error(server.post(COMPLETION, **{"prompt": "a", "max_tokens": 1} | fields))
    assert error["param"] == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"a": \x00}'])
def test_a_body_that_is_no_object_is_refused(server, body):
    for path in (COMPLETION, CHAT, "/tokenize", "/detokenize", "/apply-template"):
        check_error(server.http.post(path, content=body))


def test_unknown_models_and_routes_are_404(server):
    for path in (COMPLETION, CHAT):
        body = {"model": "gpt-4", "prompt": "a", "messages": [USER]}
        error = check_error(server.post(path, **body), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
    check_error(server.http.get("/v1/models/small@3"), 404)
    check_error(server.post("/v1/embeddings", input="a"), 404)
    check_error(server.http.get(COMPLETION), 405)


def test_null_is_the_default_and_unknown_fields_have_no_effect(server):
    body = {"prompt": "a", "max_tokens": 3, "seed": 1}
    plain = server.post(COMPLETION, **body).json()["choices"]
    nulls = dict.fromkeys(["temperature", "n", "stop", "logit_bias", "stream", "tools", "user"])
    assert server.post(COMPLETION, **body, **nulls).json()["choices"] == plain
    others = {"user": "me", "metadata": {"a": "b"}, "store": True, "keep_alive": 5}
    assert server.post(COMPLETION, **body, **others).json()["choices"] == plain


def random_value(rng, depth=0):
    simple = [None, True, 0, -1, 3, 2**70, 0.5, -1e300, "", "a", "\ud83d", "é" * 50]
    choices = [lambda: rng.choice(simple)]
    if depth < 3:
        choices.append(lambda: [random_value(rng, depth + 1) for _ in range(rng.randrange(4))])
        keys = ["role", "content", "type", "text", "user", "1", "include_usage"]
        choices.append(
            lambda: {k: random_value(rng, depth + 1) for k in rng.sample(keys, rng.randrange(3))}
        )
    return rng.choice(choices)()


@pytest.mark.slow
def test_random_requests_get_no_5xx_and_no_422(server):
    """The fields and paths are those of the server's own description."""
    rng = random.Random(5)
    posts = {}
    for path, item in server.http.get("/openapi.json").json()["paths"].items():
        if "post" in item and path != "/api/preferences":
            content = item["post"]["requestBody"]["content"]["application/json"]
            posts[path] = list(content["schema"]["properties"])
    for number in range(150):
        path = rng.choice(list(posts))
        body = {"max_tokens": 2, "prompt": "a", "messages": [USER], "content": "a", "tokens": [1]}
        for field in rng.sample(posts[path], rng.randrange(1, 3)):
            body[field] = random_value(rng)
        response = server.http.post(path, content=json.dumps(body))
        assert response.status_code in (200, 400, 404), (number, path, body, response.text)
        if response.status_code != 200:
            check_error(response, response.status_code)


def test_the_description_has_every_route(server):
    document = openapi_document()
    assert server.http.get("/openapi.json").json() == document
    for path, item in document["paths"].items():
        filled = path.replace("{id}", "small").replace("{name}", "small")
        status = server.http.get(filled).status_code
        assert status == (200 if "get" in item else 405), path


@pytest.mark.slow
def test_schemathesis_finds_no_fault_in_the_description_or_the_answers(server, tmp_path):
    """Values inside and outside the schemas, other methods, missing headers, wrong types."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += ["--seed", "1", "--max-examples", "20", "--continue-on-failure", "--checks", "all"]
    # a schema cannot say that a token id is below the vocabulary of the model
    command += ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    [tested] = re.findall(r"(\d+) generated, \1 passed", done.stdout)
    assert int(tested) > 500
