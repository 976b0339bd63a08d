"""A stream without tokens, which proxies would close."""

import asyncio
from types import SimpleNamespace
from typing import Any

from gnano.serve import generation_response
from gnano.serve.api_responses import WAITING_COMMENT
from gnano.serve.generation_response import GenerationResponse


def test_a_stream_that_waits_for_its_first_token_sends_comments(monkeypatch):
    monkeypatch.setattr(generation_response, "COMMENT_SECONDS", 0.01)
    request: Any = SimpleNamespace(is_chat=False, stream=True, include_usage=False)
    entry: Any = SimpleNamespace(id="model", fingerprint="")
    response = GenerationResponse(request, entry, state=None)  # type: ignore[arg-type]
    response.choices = [None]  # type: ignore[list-item]  # one that gets no token

    async def first_events() -> list[bytes]:
        generation: Any = SimpleNamespace(updates=asyncio.Queue())
        async with generation_response.waking(generation.updates):
            events = response.run(generation, started_at=0)
            return [await anext(events), await anext(events)]

    assert asyncio.run(first_events()) == [WAITING_COMMENT] * 2
