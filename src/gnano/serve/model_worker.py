"""The thread that owns torch: it loads models and generates the texts of all requests.

    asyncio ──call, submit, cancel──▶ queue ──▶ worker: commands, then one step of each busy model
    asyncio ◀── one call_soon_threadsafe for what several steps have changed ◀──┘

A sequence belongs to the worker; what it has added since the last delivery is copied into an
`Update`, so that asyncio never reads what the worker writes. An error of a step fails the
sequences of its model only, which then goes on with a new batch.
"""

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import TypeVar

import torch

from gnano.data.sft.chat_template import AnyTemplate
from gnano.infer.continuous_batching import ContinuousBatch
from gnano.infer.engine import Engine
from gnano.infer.request import FinishReason, Request, SequenceState
from gnano.infer.sampling import TokenLogprob
from gnano.utils.terminal import echo_stderr

DELIVERY_SECONDS = 0.02  # tokens of fast models are delivered together
T = TypeVar("T")


class RefusedRequestError(ValueError):
    """A request that the model refuses, with the reason."""


@dataclass(eq=False)
class LoadedModel:
    """A model in memory, and the batch that generates its texts."""

    engine: Engine
    template: AnyTemplate | None  # None: it was not tuned to chat
    new_batch: Callable[[], ContinuousBatch]
    batch: ContinuousBatch
    parallel: int
    num_bytes: int  # estimated, with its caches
    longest_token: int  # in bytes
    users: int = 0  # requests that use it; only a model without users is let go
    pending: int = 0  # sequences that were submitted and are not finished

    @property
    def dtype(self) -> torch.dtype:
        """The precision of what is not quantized."""
        return self.engine.model.model.embed_tokens.weight.dtype

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its text."""
        return self.batch.max_length


@dataclass(frozen=True, kw_only=True)
class Update:
    """What a sequence has added since its last update."""

    index: int  # of the sequence in its generation
    text: str
    logprobs: tuple[TokenLogprob, ...]
    prompt_logprobs: tuple[TokenLogprob | None, ...]
    output_tokens: int  # in total
    cached_tokens: int  # of the prompt
    finish_reason: FinishReason | None
    ended_by_token: bool  # the text ended with a token that ends texts
    error: str


@dataclass(eq=False)
class Generation:
    """The sequences of one request."""

    model: LoadedModel
    updates: asyncio.Queue[list[Update]] = field(default_factory=asyncio.Queue)
    unfinished: int = 0
    sequences: list[SequenceState] = field(default_factory=list)  # the worker's
    # the worker's: characters, log-probabilities and those of the prompt that were delivered
    delivered: list[tuple[int, int, int]] = field(default_factory=list)


class ModelWorker:
    """A thread that runs functions and generates texts, and delivers them to asyncio."""

    def __init__(self) -> None:
        self.commands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # unfinished sequences of each model that has any, with their places
        self.busy: dict[LoadedModel, dict[SequenceState, tuple[Generation, int]]] = {}
        self.changed: dict[SequenceState, tuple[Generation, int]] = {}  # and not delivered
        self.last_delivery = 0.0
        self.num_failures = 0  # steps that raised an error
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = Thread(target=self._run, name="model-worker", daemon=True)

    def start(self) -> None:
        """Start the thread; results go to the running event loop."""
        self.loop = asyncio.get_running_loop()
        self.thread.start()

    def stop(self, timeout: float) -> bool:
        """End the thread after its current step; return False if that takes longer."""
        self.commands.put(None)
        self.thread.join(timeout)
        return not self.thread.is_alive()

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function in the thread, between two steps, and return its result."""
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except Exception as error:
                    future.set_exception(error)

        self.commands.put(run)
        return await asyncio.wrap_future(future)

    @asynccontextmanager
    async def generate(
        self, model: LoadedModel, requests: Sequence[Request]
    ) -> AsyncIterator[Generation]:
        """Submit requests; yield their generation, and cancel what is unfinished at the end.

        Raises RefusedRequestError.
        """
        generation = Generation(model, unfinished=len(requests))
        model.pending += len(requests)
        try:
            await self.call(partial(self._add, generation, requests))
            yield generation
        finally:
            model.pending -= generation.unfinished
            generation.unfinished = 0
            self.commands.put(partial(self._cancel, generation))

    def _run(self) -> None:
        while True:
            try:
                command = self.commands.get(block=not self.busy)
            except Empty:
                for model in list(self.busy):
                    self._step(model)
                continue
            self._deliver()  # the command may take long
            if command is None:
                return
            command()

    def _add(self, generation: Generation, requests: Sequence[Request]) -> None:
        batch, added = generation.model.batch, generation.sequences
        try:
            added.extend(map(batch.add, requests))
        except ValueError as error:
            self._cancel(generation)
            raise RefusedRequestError(str(error)) from None
        generation.delivered = [(0, 0, 0)] * len(added)
        places = {sequence: (generation, index) for index, sequence in enumerate(added)}
        self.busy.setdefault(generation.model, {}).update(places)
        self._collect(generation.model, [one for one in added if one.finish_reason])

    def _cancel(self, generation: Generation) -> None:
        unfinished = self.busy.get(generation.model, {})
        for sequence in generation.sequences:
            generation.model.batch.cancel(sequence)
            unfinished.pop(sequence, None)
            self.changed.pop(sequence, None)
        if not unfinished:
            self.busy.pop(generation.model, None)

    def _step(self, model: LoadedModel) -> None:
        try:
            changed = model.batch.step(partial(self._collect, model))
        except Exception:
            self.num_failures += 1
            echo_stderr(f"gnano: a step failed:\n{traceback.format_exc()}")
            changed = list(self.busy.get(model, ()))
            for sequence in changed:
                sequence.finish_reason = "error"
                sequence.error = "The model failed while it generated this text."
            model.batch = model.new_batch()
        self._collect(model, changed)

    def _collect(self, model: LoadedModel, changed: Sequence[SequenceState]) -> None:
        """Note what has changed, and deliver it if it is urgent or due."""
        unfinished, is_urgent = self.busy.get(model, {}), False
        for sequence in changed:
            if place := unfinished.get(sequence):
                generation, index = place
                delivered = generation.delivered[index]
                if delivered == _sizes(sequence) and not sequence.finish_reason:
                    continue  # a token that is held back: part of a character, or of a stop string
                self.changed[sequence] = place
                is_urgent |= delivered == (0, 0, 0)
                if sequence.finish_reason:
                    is_urgent = True
                    del unfinished[sequence]
        if not unfinished:
            self.busy.pop(model, None)
        if is_urgent or monotonic() - self.last_delivery >= DELIVERY_SECONDS:
            self._deliver()

    def _deliver(self) -> None:
        if not self.changed:
            return
        updates: dict[Generation, list[Update]] = {}
        for sequence, (generation, index) in self.changed.items():
            updates.setdefault(generation, []).append(_take_update(sequence, generation, index))
        self.changed.clear()
        self.last_delivery = monotonic()
        assert self.loop is not None
        with suppress(RuntimeError):  # the loop was closed at exit
            self.loop.call_soon_threadsafe(_receive_updates, updates)


def _sizes(sequence: SequenceState) -> tuple[int, int, int]:
    return len(sequence.text), len(sequence.logprobs), len(sequence.prompt_logprobs)


def _take_update(sequence: SequenceState, generation: Generation, index: int) -> Update:
    text, logprobs, prompt = generation.delivered[index]
    generation.delivered[index] = _sizes(sequence)
    return Update(
        index=index,
        text=sequence.text[text:],
        logprobs=tuple(sequence.logprobs[logprobs:]),
        prompt_logprobs=tuple(sequence.prompt_logprobs[prompt:]),
        output_tokens=len(sequence.output_ids),
        cached_tokens=sequence.cached_tokens,
        finish_reason=sequence.finish_reason,
        ended_by_token=sequence.finish_reason == "stop" and not sequence.detokenizer.stopped,
        error=sequence.error,
    )


def _receive_updates(updates: dict[Generation, list[Update]]) -> None:
    """Hand the updates to the requests; runs in the event loop."""
    for generation, own in updates.items():
        finished = sum(update.finish_reason is not None for update in own)
        finished = min(finished, generation.unfinished)  # 0 where the request has ended
        generation.unfinished -= finished
        generation.model.pending -= finished
        generation.updates.put_nowait(own)
