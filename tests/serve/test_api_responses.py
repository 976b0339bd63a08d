"""OpenAI's own client gets what its specification promises, streamed or not."""

import asyncio
import itertools
import math

import openai
import pytest
import torch

from gnano.infer.engine import Engine

PROMPT = "the river"
MESSAGES = [{"role": "user", "content": "Say the river"}]
NO_END = {"299": -100}  # <|endoftext|>


def options(**changes):
    return {"max_tokens": 12, "seed": 3, "logit_bias": NO_END} | changes


def streamed_text(chunks, is_chat, index=0):
    found = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    texts = [choice.delta.content or "" if is_chat else choice.text for choice in found]
    reasons = [choice.finish_reason for choice in found if choice.finish_reason]
    return "".join(texts), reasons


MATRIX = list(itertools.product((False, True), (1, 3), (None, 2), ((), ("a", "e")), (False, True)))


@pytest.mark.slow
@pytest.mark.parametrize("is_chat", [False, True])
def test_a_streamed_text_is_the_whole_text(server, is_chat):
    """Over n, log-probabilities, stop strings and usage, with one seed."""
    create = server.openai.chat.completions.create if is_chat else server.openai.completions.create
    for with_penalty, n, top, stop, with_usage in MATRIX:
        given = options(n=n, stop=list(stop) or None, model="small-sft")
        given |= {"messages": MESSAGES} if is_chat else {"prompt": PROMPT}
        given |= {"frequency_penalty": 1.5} if with_penalty else {}
        if top is not None:
            given |= {"logprobs": True, "top_logprobs": top} if is_chat else {"logprobs": top}
        whole = create(**given)
        usage = {"stream_options": {"include_usage": True}} if with_usage else {}
        chunks = list(create(**given, **usage, stream=True))
        assert {chunk.id for chunk in chunks} != {whole.id}
        for choice in whole.choices:
            text = choice.message.content if is_chat else choice.text
            assert streamed_text(chunks, is_chat, choice.index) == (text, [choice.finish_reason])
            assert not any(part in text for part in stop)
            assert choice.finish_reason == "length" or stop
            assert (choice.logprobs is None) == (top is None)
        usages = [chunk.usage for chunk in chunks if chunk.usage]
        assert usages == ([whole.usage] if with_usage else [])
        assert len(whole.choices) == n
        assert len({str(choice) for choice in whole.choices}) == n


def test_log_probabilities_have_the_shapes_of_both_endpoints(server):
    chat = server.openai.chat.completions.create(
        model="small-sft", messages=MESSAGES, logprobs=True, top_logprobs=3, **options()
    ).choices[0]
    for entry in chat.logprobs.content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        top = [one.logprob for one in entry.top_logprobs]
        assert top == sorted(top, reverse=True)
    content = b"".join(bytes(entry.bytes) for entry in chat.logprobs.content)
    assert content.decode(errors="replace") == chat.message.content
    choice = server.openai.completions.create(
        model="small", prompt=PROMPT, logprobs=2, temperature=0, **options()
    ).choices[0]
    found = choice.logprobs
    for token, logprob, top in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert top[token] == logprob == max(top.values())  # greedy; the same float
    assert found.text_offset[0] == 0 and found.text_offset == sorted(found.text_offset)


def test_streamed_log_probabilities_are_the_whole_ones(server):
    for is_chat in (True, False):
        asked = {"messages": MESSAGES, "logprobs": True}
        given = asked if is_chat else {"prompt": PROMPT, "logprobs": 1}
        endpoint = server.openai.chat.completions if is_chat else server.openai.completions
        whole = endpoint.create(model="small-sft", **given, **options()).choices[0].logprobs
        parts = [
            chunk.choices[0].logprobs
            for chunk in endpoint.create(model="small-sft", stream=True, **given, **options())
            if chunk.choices[0].logprobs
        ]
        if is_chat:
            assert [entry for part in parts for entry in part.content] == whole.content
        else:
            for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
                joined = [entry for part in parts for entry in getattr(part, name)]
                assert joined == getattr(whole, name)


def test_prompts_may_be_texts_ids_and_lists_of_them(server):
    ids = server.post("/tokenize", model="small", content=PROMPT).json()["tokens"]
    start = [299, *ids]  # a text starts a document

    def texts(prompt):
        made = server.openai.completions.create(
            model="small", prompt=prompt, temperature=0, **options(n=2)
        )
        assert [choice.index for choice in made.choices] == list(range(len(made.choices)))
        return [choice.text for choice in made.choices]

    one = texts(PROMPT)
    assert texts(start) == one
    assert texts([PROMPT, PROMPT]) == texts([start, start]) == [*one, *one]


def test_the_same_seed_gives_the_same_text_alone_and_in_company(server):
    async def ask(client, seed):
        made = await client.completions.create(
            model="small", prompt=f"the {'bird ' * (seed % 5)}", **options(seed=seed, max_tokens=40)
        )
        return made.choices[0].text

    async def ask_all(seeds):
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await asyncio.gather(*(ask(client, seed) for seed in seeds))

    seeds = [-5, 0, 1, 2, 3, 4, 5, 2**62]
    together = asyncio.run(ask_all(seeds))
    alone = [asyncio.run(ask_all([seed]))[0] for seed in seeds]
    assert together == alone and len(set(alone)) == len(seeds)


def test_best_of_returns_the_likeliest_texts(server):
    given = {"model": "small", "prompt": PROMPT, "logprobs": 0, **options()}
    every = server.openai.completions.create(**given, n=4).choices
    best = server.openai.completions.create(**given, n=2, best_of=4)
    mean = {c.text: math.fsum(c.logprobs.token_logprobs) / len(c.logprobs.tokens) for c in every}
    assert [c.text for c in best.choices] == sorted(mean, key=mean.__getitem__, reverse=True)[:2]
    assert best.usage.completion_tokens == 4 * 12


def test_more_tokens_than_the_context_has_are_cut_off_and_a_longer_prompt_is_refused(server):
    made = server.openai.completions.create(
        model="small", prompt=PROMPT, **options(max_tokens=10**12)
    )
    assert made.choices[0].finish_reason == "length"
    assert made.usage.total_tokens <= 129
    with pytest.raises(openai.BadRequestError) as refused:
        server.openai.completions.create(model="small", prompt=[1] * 129, max_tokens=1)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.BadRequestError, match="too long"):
        long = [{"role": "user", "content": "a" * 100_000}]
        server.openai.chat.completions.create(model="small", messages=long)


def test_a_typed_control_token_is_text(server):
    asked = {"model": "small-sft", "messages": [{"role": "user", "content": "<|endoftext|>"}]}
    found = server.post("/apply-template", **asked).json()
    assert found["special"] == [True] + [False] * (len(found["tokens"]) - 1)
    assert found["prompt"].count("<|endoftext|>") == 2
    assert "".join(found["pieces"]) == found["prompt"]


def test_a_model_without_a_template_warns(server):
    asked = {"messages": MESSAGES, "max_tokens": 1}
    assert (
        "Alpaca"
        in server.post("/v1/chat/completions", model="small", **asked).headers["x-gnano-warning"]
    )
    tuned = server.post("/v1/chat/completions", model="small-sft", **asked)
    assert "x-gnano-warning" not in tuned.headers


def test_an_echo_has_the_log_probabilities_of_the_prompt(server, runs):
    """Compared with the model itself, computed on all of the prompt at once."""
    engine = Engine.load(runs / "small")
    ids = (299, *engine.tokenizer.encode(PROMPT))
    with torch.inference_mode():
        hidden_TD = engine.model.hidden_states(torch.tensor([ids]))[0]
        expected_TV = engine.model.logits(hidden_TD)[:, :300].float().log_softmax(-1)
    expected = expected_TV[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].tolist()
    for stream in (False, True):
        given = {"model": "small", "prompt": PROMPT, "echo": True, "logprobs": 2}
        made = server.openai.completions.create(**given, max_tokens=0, stream=stream)
        [choice] = [chunk.choices[0] for chunk in made] if stream else made.choices
        found = choice.logprobs
        assert choice.text == PROMPT and choice.finish_reason == "length"
        assert "".join(found.tokens) == f"<|endoftext|>{PROMPT}"
        assert found.text_offset[:3] == [0, 0, len(found.tokens[1])]
        assert found.token_logprobs[0] is found.top_logprobs[0] is None
        assert found.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
        for token, logprob, top in zip(
            found.tokens[1:], found.token_logprobs[1:], found.top_logprobs[1:], strict=True
        ):
            assert top[token] == logprob
    whole = server.openai.completions.create(**given, max_tokens=5).choices[0]
    assert whole.text.startswith(PROMPT) and len(whole.logprobs.tokens) == len(ids) + 5
