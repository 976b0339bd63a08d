"""The routes of the server, and its start and end.

/v1/models, /v1/completions, /v1/chat/completions      OpenAI's API
/tokenize, /detokenize, /apply-template                what a prompt looks like
/health, /metrics, /openapi.json                       for programs that watch and call it
/, /page/…, /api/…                                     the web page, and what it shows of runs
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gnano.checkpoint.run_checkpoints import CHECKPOINTS_DIR, list_checkpoints
from gnano.config.inference_config import LoadConfig
from gnano.config.serve_config import ServeConfig
from gnano.serve.api_errors import ApiError, not_found, server_error
from gnano.serve.api_requests import (
    GenerationRequest,
    parse_chat,
    parse_completion,
    parse_object,
)
from gnano.serve.api_schema import openapi_document
from gnano.serve.generation_response import GenerationResponse
from gnano.serve.guards import Guards, get_record
from gnano.serve.http_server import DrainingServer
from gnano.serve.model_worker import ModelWorker
from gnano.serve.run_routes import RunRoutes
from gnano.serve.served_models import ServedModels
from gnano.serve.server_metrics import Labels, ServerMetrics
from gnano.serve.server_state import ServerState
from gnano.serve.text_routes import TextRoutes
from gnano.utils.formatting import format_gb, plural
from gnano.utils.platform_support import disable_malloc_trim, resident_bytes
from gnano.utils.terminal import echo, echo_stderr

PAGE = Path(__file__).with_name("page")
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "cache-control": "no-cache",  # with an ETag: an upgrade never mixes old and new files
    "referrer-policy": "no-referrer",
}
EXIT_SECONDS = 5.0  # for the step that the model's thread is in


def run_server(models: Sequence[Path], loading: LoadConfig, config: ServeConfig) -> int:
    """Serve models until a signal; return the exit code."""
    if not models:
        raise ValueError("Name a model to serve, such as runs/demo-sft.")
    sockets = [_bind(config)]
    disable_malloc_trim(in_threads=True)
    asyncio.run(_serve(models, loading, config, sockets))
    sys.stdout.flush()
    return 0


async def _serve(
    paths: Sequence[Path], loading: LoadConfig, config: ServeConfig, sockets: list[socket.socket]
) -> None:
    worker, metrics = ModelWorker(), ServerMetrics()
    state = ServerState(config, ServedModels(paths, worker, loading, config), worker, metrics)
    runs = RunRoutes(config.runs or _runs_folder(paths), config.preferences)
    app = Guards(create_app(state, runs), config, metrics, state.check_ready)
    server = DrainingServer(app, config.drain_s, state.drain, lambda: app.open_requests == 0)
    worker.start()
    for entry in list(state.models.fixed.values()):
        if state.models.has_room(entry):
            async with state.models.use(entry):
                pass
    _print_start(state, sockets[0])
    following = asyncio.create_task(state.models.follow_runs()) if config.follow else None
    await server.serve(sockets)
    if following is not None:
        following.cancel()
    if not worker.stop(EXIT_SECONDS):
        os._exit(0)  # the thread is in the middle of C++, which Python must not unwind


def create_app(state: ServerState, runs: RunRoutes) -> Starlette:
    """Return the application with all routes."""
    routes = ApiRoutes(state)
    listed: list[BaseRoute] = [
        Route("/v1/models", routes.list_models),
        Route("/v1/models/{id:path}", routes.show_model),
        Route("/v1/completions", routes.complete, methods=["POST"]),
        Route("/v1/chat/completions", routes.chat, methods=["POST"]),
        *TextRoutes(state).routes,
        Route("/health", routes.health),
        Route("/metrics", routes.metrics),
        Route("/openapi.json", routes.openapi),
        *runs.routes,
        Route("/", _show_page),
    ]
    if PAGE.is_dir():
        files = StaticFiles(directory=PAGE)
        listed.append(Mount("/page", _with_headers(files, PAGE_HEADERS)))
    for route in listed:
        if isinstance(route, Route):
            route.app = _with_route(route.path, route.app)
    handlers: dict[Any, Any] = {
        ApiError: _answer_error,
        HTTPException: _answer_http_error,
        Exception: _answer_failure,  # and the guards log it
    }
    return Starlette(routes=listed, exception_handlers=handlers)


class ApiRoutes:
    """The routes of models and generation, and those that watch the server."""

    def __init__(self, state: ServerState) -> None:
        self.state = state

    async def list_models(self, request: Request) -> Response:
        """Return all models."""
        models = self.state.models
        found = []
        for entry in models.list_entries().values():
            try:
                found.append(models.describe(entry))
            except (OSError, ValueError) as error:  # it is being removed, or damaged
                echo_stderr(f"gnano: {entry.id} is not listed: {error}")
        return JSONResponse({"object": "list", "data": found})

    async def show_model(self, request: Request) -> Response:
        """Return one model."""
        models = self.state.models
        return JSONResponse(models.describe(models.find(request.path_params["id"])))

    async def complete(self, request: Request) -> Response:
        """Continue prompts."""
        return self._respond(parse_completion(parse_object(await request.body())))

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        return self._respond(parse_chat(parse_object(await request.body())))

    async def health(self, request: Request) -> Response:
        """Return whether new requests are answered."""
        is_draining = self.state.is_draining
        status = "stopping" if is_draining else "ok"
        return JSONResponse({"status": status}, 503 if is_draining else 200)

    async def metrics(self, request: Request) -> Response:
        """Return the figures for Prometheus."""
        waiting: dict[Labels, float] = {}
        running: dict[Labels, float] = {}
        for entry in self.state.models.fixed.values():
            if (model := self.state.models.loaded.get(entry.folder)) is not None:
                labels = (("model", entry.id),)
                waiting[labels] = min(len(model.batch.waiting), model.pending)
                running[labels] = model.pending - waiting[labels]
        gauges: dict[str, tuple[str, dict[Labels, float]]] = {
            "gnano_texts_running": ("Texts that are generated.", running),
            "gnano_texts_waiting": ("Texts that wait for a place.", waiting),
            "gnano_models_loaded": (
                "Models in memory.",
                {(): len(self.state.models.loaded)},
            ),
            "gnano_failed_steps_total": (
                "Steps that raised an error.",
                {(): self.state.worker.num_failures},
            ),
            "gnano_resident_bytes": ("Resident memory.", {(): resident_bytes() or 0}),
        }
        text = self.state.metrics.format(gauges)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """Return the description of the API."""
        return JSONResponse(openapi_document())

    def _respond(self, request: GenerationRequest) -> Response:
        entry = self.state.models.find(request.model)
        return GenerationResponse(request, entry, self.state)


async def _show_page(request: Request) -> Response:
    index = PAGE / "index.html"
    if not index.is_file():
        raise not_found("This installation has no page; the API works without it.")
    return FileResponse(index, headers=PAGE_HEADERS)


async def _answer_error(request: Request, error: ApiError) -> Response:
    return error.to_response()


async def _answer_failure(request: Request, error: Exception) -> Response:
    return server_error("The server failed; its log has the reason.").to_response()


async def _answer_http_error(request: Request, error: HTTPException) -> Response:
    place = f"{request.method} {request.url.path[:200]}"
    if error.status_code == 405:
        message = f"{place} is not a route; the path has other methods."
    elif error.status_code == 404:
        message = f"{place} is not a route; /openapi.json lists them."
    else:
        message = str(error.detail)
    headers = dict(error.headers or {})
    return ApiError(
        message, code="unknown_route", status=error.status_code, headers=headers
    ).to_response()


def _with_route(path: str, app: ASGIApp) -> ASGIApp:
    """Name the route in the metrics, whose labels must not come from clients."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        get_record(scope).route = path
        await app(scope, receive, send)

    return run


def _with_headers(app: ASGIApp, headers: dict[str, str]) -> ASGIApp:
    """Return an application whose responses have these headers, too."""
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *pairs]
            await send(message)

        get_record(scope).route = "/page"
        await app(scope, receive, send_with_headers)

    return run


def _bind(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((config.host, config.port))
        server.listen()  # clients wait while the models are loaded
    except OSError as error:
        raise ValueError(
            f"{config.host}:{config.port} cannot be used ({error.strerror}): choose another "
            f"address (--host, --port)."
        ) from None
    return server


def _runs_folder(paths: Sequence[Path]) -> Path | None:
    """Return the folder that holds the first run among the models."""
    for path in paths:
        run = path.parent.parent if path.parent.name == CHECKPOINTS_DIR else path
        if list_checkpoints(run):
            return run.resolve().parent
    return None


def _print_start(state: ServerState, server: socket.socket) -> None:
    models = state.models
    limit = "" if models.max_bytes is None else f" of {format_gb(models.max_bytes)} free for models"
    for entry in models.fixed.values():
        size = format_gb(models.estimate_bytes(entry))
        context = models.describe(entry)["x_gnano"]["context"]
        loaded = "" if entry.folder in models.loaded else ", loaded at its first request"
        echo_stderr(f"{entry.id}: context {context:,}, about {size}{limit} with all caches{loaded}")
    threads = models.loading.threads
    echo_stderr(
        f"{plural(models.parallel, 'text')} together, {state.config.queue:,} may wait"
        + (f"; {plural(threads, 'thread')}" if threads else "")
    )
    host, port = server.getsockname()[:2]
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    echo(f"http://{f'[{name}]' if ':' in name else name}:{port}")
