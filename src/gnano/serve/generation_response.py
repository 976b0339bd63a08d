"""Answers a generation request: from its prompts to the parts or the whole of its choices.

    GenerationRequest ─tokenizer thread─▶ Requests ─worker─▶ updates ─▶ events, or one object
                                                       └─ hang-up, deadline: canceled

Of several prompts with `n` choices each, choice i × n + k is the k-th of prompt i. Sample 0 has the
seed of the request, and the others have seeds derived from it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gnano.data.sft.chat_template import ALPACA, template_stop_strings
from gnano.data.sft.encoding import encode_prompt
from gnano.infer.request import FinishReason, Request
from gnano.infer.sampling import TokenLogprob
from gnano.serve.api_errors import ApiError, server_error
from gnano.serve.api_requests import GenerationRequest
from gnano.serve.api_responses import (
    DONE_EVENT,
    WAITING_COMMENT,
    Choice,
    ResponseObjects,
    TokenTexts,
    Usage,
    format_event,
    mean_logprob,
)
from gnano.serve.guards import CLIENT_CLOSED, get_record, run_until_hangup
from gnano.serve.model_worker import Generation, LoadedModel, RefusedRequestError, Update
from gnano.serve.served_models import ModelEntry
from gnano.serve.server_state import ServerState

COMMENT_SECONDS = 10.0  # between the comments in a stream
NOT_TUNED = "This model was not tuned to chat; the template of Alpaca is used."


@dataclass
class ChoiceState:
    """A choice and what is known of its text."""

    choice: Choice
    request: Request
    text: str = ""
    logprobs: list[TokenLogprob | None] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)  # of the log-probabilities
    output_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: FinishReason | None = None

    def add(self, update: Update) -> None:
        """Add what has been generated since the last update."""
        self.text += update.text
        known = len(self.logprobs)  # complete before the first token of the text
        self.ids += self.request.prompt_ids[known : known + len(update.prompt_logprobs)]
        self.ids += [entry.token_id for entry in update.logprobs]
        self.logprobs += [*update.prompt_logprobs, *update.logprobs]
        self.finish_reason = update.finish_reason

    def take(self) -> dict[str, Any]:
        """Return what is known as a part of a stream, and forget it."""
        part = self.to_json(is_chunk=True)
        self.text = ""
        self.logprobs.clear()
        self.ids.clear()
        return part

    def to_json(self, is_chunk: bool = False) -> dict[str, Any]:
        """Return the choice."""
        return self.choice.to_json(self.text, self.logprobs, self.ids, self.finish_reason, is_chunk)


class GenerationResponse(Response):
    """The response of a generation request; it generates while it is sent."""

    def __init__(self, request: GenerationRequest, entry: ModelEntry, state: ServerState) -> None:
        self.request, self.entry, self.state = request, entry, state
        self.objects = ResponseObjects(
            entry.id, entry.fingerprint, request.is_chat, request.include_usage
        )
        self.usage = Usage()
        self.choices: list[ChoiceState] = []
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send, until the client hangs up."""
        record = get_record(scope)
        record.model = self.entry.id
        try:
            if not await run_until_hangup(receive, self._respond(scope, receive, send)):
                record.status = CLIENT_CLOSED
        finally:
            prompt, output = self.usage.prompt_tokens, self.usage.completion_tokens
            record.facts.append(f"{prompt}+{output} tokens")
            metrics, labels = self.state.metrics, (("model", self.entry.id),)
            metrics.prompt_tokens[labels] += prompt
            metrics.cached_tokens[labels] += self.usage.cached_tokens
            metrics.output_tokens[labels] += output
            metrics.request_seconds.observe(monotonic() - record.started_at)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_started = False
        try:
            async with self.state.deadline(), self.state.models.use(self.entry) as model:
                requests = await self._encode(model)
                self.state.check_queue(model, len(requests))
                try:
                    async with (
                        self.state.worker.generate(model, requests) as generation,
                        waking(generation.updates),
                    ):
                        events = self.run(generation, get_record(scope).started_at)
                        if not self.request.stream:
                            async for _ in events:
                                pass
                            body = self.objects.complete(self._best_choices(), self.usage)
                            await JSONResponse(body, headers=self._extra_headers(model))(
                                scope, receive, send
                            )
                            return
                        await send(_stream_start(self._extra_headers(model)))
                        is_started = True
                        async for event in events:
                            await send(_body(event))
                except RefusedRequestError as error:
                    raise ApiError(str(error), self.request.prompt_field) from None
        except (ApiError, TimeoutError) as error:
            failure = error if isinstance(error, ApiError) else self.state.deadline_error()
            if not is_started:
                raise failure from None
            get_record(scope).facts.append(f"failed: {failure.code}")
            await send(_body(format_event(failure.body)))
        await send(_body(b"", more_body=False))

    async def _encode(self, model: LoadedModel) -> list[Request]:
        """Return the requests of all choices; raise ApiError for prompts that do not fit."""
        request = self.request
        sampling, vocab_size = request.sampling, model.engine.tokenizer.vocab_size
        for token, _ in sampling.logit_bias:
            if token >= vocab_size:
                raise ApiError(
                    f"logit_bias names the token {token}, and the model has {vocab_size:,}.",
                    "logit_bias",
                )
        encode = partial(self._encode_prompts, model)
        prompts = await self.state.tokenize(encode)
        template = model.template or ALPACA
        stop = request.stop + (template_stop_strings(template) if request.is_chat else ())
        logprobs = request.logprobs
        if logprobs is None and request.best_of > request.n:
            logprobs = 0
        texts = TokenTexts(model.engine.tokenizer)
        requests = []
        for prompt, prompt_ids in enumerate(prompts):
            self.usage.prompt_tokens += len(prompt_ids)
            text = self._echo_text(prompt, model) if request.echo else ""
            for number in range(request.best_of):
                requests.append(
                    Request(
                        prompt_ids=prompt_ids,
                        max_new_tokens=request.max_tokens,
                        sampling=sampling.for_sample(number),
                        logprobs=logprobs,
                        prompt_logprobs=request.echo and request.logprobs is not None,
                        stop=stop,
                    )
                )
                choice = Choice(texts, len(self.choices), request.is_chat, request.logprobs)
                self.choices.append(ChoiceState(choice, requests[-1], text))
        return requests

    def _echo_text(self, number: int, model: LoadedModel) -> str:
        prompt = self.request.prompts[number]
        return prompt if isinstance(prompt, str) else model.engine.tokenizer.decode(prompt)

    def _encode_prompts(self, model: LoadedModel) -> list[tuple[int, ...]]:
        """Return the ids of all prompts; runs in the tokenizer's thread."""
        request, engine, context = self.request, model.engine, model.context
        if request.is_chat:
            check_length(sum(len(turn.content) for turn in request.turns), model, "messages")
            template = model.template or ALPACA
            try:
                prompts = [tuple(encode_prompt(request.turns, template, engine.tokenizer))]
            except ValueError as error:  # a template may refuse a conversation
                raise ApiError(f"messages cannot be used: {error}.", "messages") from None
        else:
            for prompt in request.prompts:
                check_length(len(prompt), model, "prompt")
            prompts = [engine.encode_prompt(prompt) for prompt in request.prompts]
        for ids in prompts:
            if len(ids) > context:
                raise ApiError(
                    f"The prompt has {len(ids):,} tokens, and the model's context has "
                    f"{context:,}; shorten it.",
                    request.prompt_field,
                    "context_length_exceeded",
                )
        return prompts

    async def run(self, generation: Generation, started_at: float) -> AsyncIterator[bytes]:
        """Yield the events of a stream while the choices grow."""
        chunk, request = self.objects.chunk, self.request
        if request.is_chat and request.stream:
            for state in self.choices:
                delta = {"role": "assistant", "content": "", "refusal": None}
                head = {"index": state.choice.index, "delta": delta}
                yield chunk([{**head, "logprobs": None, "finish_reason": None}])
        unfinished = len(self.choices)
        has_token = False
        while unfinished:
            updates = await generation.updates.get()
            if not updates:
                yield WAITING_COMMENT
            for update in updates:
                if update.finish_reason == "error":
                    raise server_error(update.error or "The model failed.", "model_failed")
                state = self.choices[update.index]
                state.add(update)
                if request.echo and request.logprobs is not None and update.ended_by_token:
                    # an end that is generated counts as a token of the text
                    state.logprobs.append(None)
                    state.ids.append(generation.model.engine.tokenizer.end_of_text_id)
                self.usage.completion_tokens += update.output_tokens - state.output_tokens
                state.output_tokens = update.output_tokens
                if update.index % request.best_of == 0:  # a prompt counts once
                    self.usage.cached_tokens += update.cached_tokens - state.cached_tokens
                    state.cached_tokens = update.cached_tokens
                unfinished -= update.finish_reason is not None
                if request.stream and (state.text or state.logprobs or state.finish_reason):
                    yield chunk([state.take()])
            if not has_token and self.usage.completion_tokens:
                has_token = True
                self.state.metrics.first_token_seconds.observe(monotonic() - started_at)
        if request.stream and request.include_usage:
            yield chunk([], self.usage)
        if request.stream:
            yield DONE_EVENT

    def _best_choices(self) -> list[dict[str, Any]]:
        """Return the choices, of each prompt the `n` of the highest mean log-probability."""
        kept: list[ChoiceState] = []
        size, n = self.request.best_of, self.request.n
        for start in range(0, len(self.choices), size):
            group = self.choices[start : start + size]
            if size > n:
                group.sort(key=lambda state: mean_logprob(state.logprobs), reverse=True)
            kept += group[:n]
        for index, state in enumerate(kept):
            state.choice.index = index
        return [state.to_json() for state in kept]

    def _extra_headers(self, model: LoadedModel) -> dict[str, str]:
        is_untuned = self.request.is_chat and model.template is None
        return {"x-gnano-warning": NOT_TUNED} if is_untuned else {}


@asynccontextmanager
async def waking(updates: asyncio.Queue[list[Update]]) -> AsyncIterator[None]:
    """Put an empty list into the queue every COMMENT_SECONDS; a timer a token would cost more."""

    async def wake() -> None:
        while True:
            await asyncio.sleep(COMMENT_SECONDS)
            updates.put_nowait([])

    timer = asyncio.create_task(wake())
    try:
        yield
    finally:
        timer.cancel()


def check_length(size: int, model: LoadedModel, param: str) -> None:
    """Raise ApiError for a text that cannot fit in the context, before it is tokenized."""
    if size > model.context * model.longest_token:
        raise ApiError(
            f"{param} is too long for the model's context of {model.context:,} tokens; shorten it.",
            param,
            "context_length_exceeded",
        )


def _stream_start(headers: dict[str, str]) -> dict[str, Any]:
    pairs = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
    encoded = [(k.encode(), v.encode()) for k, v in (pairs | headers).items()]
    return {"type": "http.response.start", "status": 200, "headers": encoded}


def _body(content: bytes, more_body: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more_body}
