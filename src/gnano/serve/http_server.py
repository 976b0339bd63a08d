"""uvicorn with time limits for clients, and with an orderly end.

Of each connection:  request line and headers complete within HEADER_SECONDS
                     what is sent is read within STALL_SECONDS, or the connection is cut
First signal:        new requests get code 503; open ones may finish within the time for it
Second signal:       the process ends at once
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gnano.utils.terminal import echo_stderr

HEADER_SECONDS = 10.0
STALL_SECONDS = 30.0
MAX_CONNECTIONS = 1_000
MAX_HEADER_BYTES = 64 * 1024


class TimedProtocol(H11Protocol):
    """A connection that is cut when its client does not send or read in time."""

    header_timer: asyncio.TimerHandle | None = None
    stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._set_header_timer()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        self._set_header_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        for timer in (self.header_timer, self.stall_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start to wait for the client to read."""
        super().pause_writing()
        self.stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        super().resume_writing()
        if self.stall_timer is not None:
            self.stall_timer.cancel()
            self.stall_timer = None

    def _set_header_timer(self) -> None:
        # a request is incomplete, or the rest of a body comes after its answer
        is_waiting = self.conn.their_state is h11.IDLE or (
            self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        )
        if is_waiting and self.header_timer is None:
            self.header_timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)
        elif not is_waiting and self.header_timer is not None:
            self.header_timer.cancel()
            self.header_timer = None


class DrainingServer(uvicorn.Server):
    """A server that finishes open requests after the first signal.

    `on_drain` is called then; `is_idle` tells whether all requests have ended.
    """

    def __init__(
        self,
        app: Any,
        drain_seconds: float,
        on_drain: Callable[[], None],
        is_idle: Callable[[], bool],
    ) -> None:
        config = uvicorn.Config(
            app,
            http=TimedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        super().__init__(config)
        self.drain_seconds, self.on_drain, self.is_idle = drain_seconds, on_drain, is_idle
        self.drain_task: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM until the block ends; uvicorn would raise them again."""
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            if self.drain_task is not None:
                os._exit(128 + number)
            self.drain_task = loop.create_task(self._drain())
            loop.call_soon_threadsafe(lambda: None)  # wakes the loop

        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, before in previous.items():
                signal.signal(number, before)

    async def _drain(self) -> None:
        self.on_drain()
        deadline = asyncio.get_running_loop().time() + self.drain_seconds
        if not self.is_idle():
            echo_stderr(
                f"Open requests may finish within {self.drain_seconds:g} s; a second signal stops "
                f"at once."
            )
        while not self.is_idle() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        self.should_exit = True
