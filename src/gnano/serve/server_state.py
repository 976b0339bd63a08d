"""What all routes share: models, worker, metrics, and whether the server is stopping."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from gnano.config.serve_config import ServeConfig
from gnano.serve.api_errors import ApiError
from gnano.serve.model_worker import LoadedModel, ModelWorker
from gnano.serve.served_models import ServedModels
from gnano.serve.server_metrics import ServerMetrics

RETRY_SECONDS = 2  # after which a client may try again
T = TypeVar("T")


@dataclass(eq=False)
class ServerState:
    """The state of a server."""

    config: ServeConfig
    models: ServedModels
    worker: ModelWorker
    metrics: ServerMetrics
    is_draining: bool = False
    deadlines: set[asyncio.Timeout] = field(default_factory=set)  # of open generation requests
    # a tokenizer changes its state while it encodes, so one thread uses it; long texts take seconds
    tokenizer_thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "tokenizer")
    )

    async def tokenize(self, function: Callable[[], T]) -> T:
        """Run a function that uses a tokenizer."""
        return await asyncio.get_running_loop().run_in_executor(self.tokenizer_thread, function)

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Raise TimeoutError in a block that takes longer than a request may."""
        async with asyncio.timeout(self.config.timeout) as timeout:
            self.deadlines.add(timeout)
            try:
                yield
            finally:
                self.deadlines.discard(timeout)

    def deadline_error(self) -> ApiError:
        """Return the error of a request that has reached its deadline."""
        if self.is_draining:
            return ApiError("The server is stopping.", code="stopping", status=503)
        return ApiError(
            f"The request took longer than {self.config.timeout:g} s (--timeout).",
            code="timeout",
            status=504,
            headers={"x-should-retry": "false"},
        )

    def check_queue(self, model: LoadedModel, count: int) -> None:
        """Raise ApiError unless there is place for so many more texts."""
        limit = model.parallel + self.config.queue
        if count > limit:
            raise ApiError(
                f"The request asks for {count:,} texts, and {limit:,} may be open at once: send "
                f"several requests, or raise --queue.",
                "n",
            )
        if model.pending + count > limit:
            raise ApiError(
                f"{model.pending:,} texts are open, and {limit:,} may be; try again later.",
                code="queue_full",
                status=429,
                headers={"retry-after": str(RETRY_SECONDS)},
            )

    def check_ready(self, path: str) -> None:
        """Raise ApiError where no new request is answered."""
        if self.is_draining and path not in ("/health", "/metrics"):
            raise ApiError(
                "The server is stopping.",
                code="stopping",
                status=503,
                headers={"retry-after": str(RETRY_SECONDS), "connection": "close"},
            )

    def drain(self) -> None:
        """Refuse new requests, and shorten the deadlines of the open ones."""
        self.is_draining = True
        end = asyncio.get_running_loop().time() + self.config.drain_s
        for timeout in self.deadlines:
            timeout.reschedule(min(timeout.when() or end, end))
