"""What every request passes before its route: who may come in, how much, and for how long.

    request id, log line, metrics ─▶ Host ─▶ Origin ─▶ key ─▶ body ─▶ routes

A web page of another site reaches a local server in two ways: from the browser with its own
`Origin`, or after its name was bound to this address (DNS rebinding) with its own `Host`. Both are
refused. A `Host` that is an IP address cannot be rebound.
"""

import asyncio
import hmac
import ipaddress
import re
import socket
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gnano.config.serve_config import ServeConfig
from gnano.reporting.run_status import to_printable_line
from gnano.serve.api_errors import ApiError
from gnano.serve.server_metrics import ServerMetrics
from gnano.utils.terminal import echo_stderr

BODY_SECONDS = 60.0  # for a complete body
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
OPEN_PATHS = re.compile(r"/|/page/.*|/health|/favicon\.ico")  # without a key
CLIENT_CLOSED = 499  # the code in the log of a request whose client hung up
EXPOSED_HEADERS = "x-request-id, retry-after"


@dataclass
class RequestRecord:
    """What is logged and counted of a request; never its texts."""

    id: str
    method: str
    path: str
    route: str = "other"  # of the metrics
    status: int = 0
    model: str = ""
    facts: list[str] = field(default_factory=list)
    started_at: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        seconds = f"{time.monotonic() - self.started_at:.2f} s"
        path = to_printable_line(self.path)[:100]
        parts = [now, str(self.status), self.method, path, self.model, *self.facts, seconds]
        return " ".join(filter(None, [*parts, self.id]))


def get_record(scope: Scope) -> RequestRecord:
    """Return the record of a request."""
    record: RequestRecord = scope["gnano.record"]
    return record


class Guards:
    """An ASGI application that checks requests before it passes them on."""

    def __init__(
        self,
        app: ASGIApp,
        config: ServeConfig,
        metrics: ServerMetrics,
        check_ready: Callable[[str], None],
    ) -> None:
        self.app, self.config, self.metrics, self.check_ready = app, config, metrics, check_ready
        self.keys = [key.encode() for key in config.read_api_keys()]
        own = ("localhost", config.host, socket.gethostname(), *config.allow_host)
        self.hosts = {host.lower().strip("[]") for host in own}
        self.max_body = int(config.max_body_mb * 1e6)
        self.open_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        record = RequestRecord(request_id, scope["method"], scope["path"])
        scope["gnano.record"] = record
        origin = headers.get("origin")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                self._add_headers(MutableHeaders(scope=message), record, origin)
            await send(message)

        self.open_requests += 1
        try:
            await self._check_and_run(scope, receive, send_with_headers, headers)
        except ApiError as error:
            await error.to_response()(scope, receive, send_with_headers)
        except Exception:
            echo_stderr(f"gnano: request {record.id} failed:\n{traceback.format_exc()}")
        finally:
            self.open_requests -= 1
            labels = (("route", record.route), ("code", str(record.status)))
            self.metrics.requests[labels] += 1
            echo_stderr(str(record))

    async def _check_and_run(
        self, scope: Scope, receive: Receive, send: Send, headers: Headers
    ) -> None:
        self._check_host(headers.get("host", ""))
        if (origin := headers.get("origin")) is not None:
            self._check_origin(origin, headers.get("host", ""))
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _preflight_response(headers)(scope, receive, send)
                return
        self.check_ready(scope["path"])
        if not OPEN_PATHS.fullmatch(scope["path"]):
            self._check_key(headers.get("authorization", ""))
        if scope["method"] not in ("GET", "HEAD"):
            receive = await self._read_body(receive, headers.get("content-length", "0"))
        await self.app(scope, receive, send)

    def _add_headers(
        self, headers: MutableHeaders, record: RequestRecord, origin: str | None
    ) -> None:
        headers["x-request-id"] = record.id
        headers["x-content-type-options"] = "nosniff"
        headers["cross-origin-resource-policy"] = "same-origin"
        headers.setdefault("cache-control", "no-store")
        if self.config.allow_origin:
            headers.add_vary_header("Origin")
        if origin is not None and self._is_allowed(origin):
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = EXPOSED_HEADERS
            headers["cross-origin-resource-policy"] = "cross-origin"

    def _check_host(self, host: str) -> None:
        name = _host_name(host)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            if name not in self.hosts:
                raise ApiError(
                    f"This server is not {name!r}; --allow-host lets it answer to that name.",
                    code="host_not_allowed",
                    status=403,
                ) from None

    def _check_origin(self, origin: str, host: str) -> None:
        is_same = origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
        if not (is_same or self._is_allowed(origin)):
            raise ApiError(
                f"Pages of {origin[:200]!r} may not use this server; --allow-origin lets them.",
                code="origin_not_allowed",
                status=403,
            )

    def _is_allowed(self, origin: str) -> bool:
        return "*" in self.config.allow_origin or origin in self.config.allow_origin

    def _check_key(self, authorization: str) -> None:
        scheme, _, given = authorization.partition(" ")
        key = given.strip().encode()
        # all keys are compared, so that the time tells nothing about them
        matches = [hmac.compare_digest(key, own) for own in self.keys]
        if self.keys and not (scheme.lower() == "bearer" and any(matches)):
            raise ApiError(
                "The API key is missing or wrong; send Authorization: Bearer KEY.",
                code="invalid_api_key",
                status=401,
                headers={"www-authenticate": "Bearer"},
            )

    async def _read_body(self, receive: Receive, length: str) -> Receive:
        """Read the complete body; return a `receive` that gives it, then waits for a hang-up."""
        too_large = ApiError(
            f"The body has more than {self.max_body:,} bytes (--max-body-mb).",
            code="body_too_large",
            status=413,
        )
        if length.isdecimal() and int(length) > self.max_body:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                is_complete = False
                while not is_complete:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError("The client hung up.", status=CLIENT_CLOSED)
                    body += message.get("body", b"")
                    is_complete = not message.get("more_body", False)
                    if len(body) > self.max_body:
                        raise too_large
        except TimeoutError:
            raise ApiError("The body did not arrive in time.", status=408) from None
        first: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return first.pop() if first else await receive()

        return replay


def _host_name(host: str) -> str:
    """Return the name or address of a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def _preflight_response(headers: Headers) -> Response:
    requested = headers.get("access-control-request-headers", "")
    allowed = {
        "access-control-allow-methods": "GET, POST, OPTIONS",
        "access-control-allow-headers": requested or "authorization, content-type",
        "access-control-max-age": "600",
    }
    return Response(status_code=204, headers=allowed)


async def run_until_hangup(receive: Receive, work: Awaitable[Any]) -> bool:
    """Run work to its end, and cancel it when the client hangs up; return whether it ended."""
    task = asyncio.ensure_future(work)
    hangup = asyncio.ensure_future(_wait_for_hangup(receive))
    try:
        await asyncio.wait((task, hangup), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        for one in (task, hangup):
            one.cancel()
        await asyncio.gather(task, hangup, return_exceptions=True)


async def _wait_for_hangup(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
