"""Routes of the page about training: the runs in a folder, their logs, and preferences.

A run is found by its name in the list of the folder; no part of a request is used as a path.
"""

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gnano.checkpoint.run_checkpoints import checkpoint_step, list_checkpoints
from gnano.config.data_config import DataConfig
from gnano.config.recipe import TUNING_COMMANDS, load_recipe
from gnano.data.sft.conversations import parse_preference
from gnano.reporting.run_status import find_runs, list_runs, run_name
from gnano.serve.api_errors import ApiError, not_found
from gnano.serve.api_requests import parse_object
from gnano.utils.files import dump_json
from gnano.utils.jsonl_log import JsonLinesWriter

MAX_LOG_BYTES = 4_000_000  # of one answer; the next one has what follows
PREFERENCE_KEYS = ("prompt", "chosen", "rejected")


class RunRoutes:
    """The routes for one folder of runs and one file of preferences; either may be missing."""

    def __init__(self, runs: Path | None, preferences: Path | None) -> None:
        self.folder = runs
        self.preferences = None if preferences is None else JsonLinesWriter(preferences)
        if self.preferences is not None and self.preferences.last_error is not None:
            raise self.preferences.last_error
        self.routes = [
            Route("/api/runs", self.list_runs),
            Route("/api/runs/{name:path}/metrics", self.read_metrics),
            Route("/api/runs/{name:path}/events", self.read_events),
            Route("/api/preferences", self.add_preference, methods=["POST"]),
        ]

    async def list_runs(self, request: Request) -> Response:
        """Return the runs, the last active one first."""
        return _json({"runs": await asyncio.to_thread(self._describe_runs)})

    async def read_metrics(self, request: Request) -> Response:
        """Return the lines of `metrics.jsonl` from a position on."""
        return await self._read_log(request, "metrics.jsonl")

    async def read_events(self, request: Request) -> Response:
        """Return the lines of `events.jsonl` from a position on."""
        return await self._read_log(request, "events.jsonl")

    async def add_preference(self, request: Request) -> Response:
        """Append a preference to the file."""
        if self.preferences is None:
            raise ApiError(
                "Preferences are not stored; start the server with --preferences FILE.",
                code="no_preferences_file",
                status=403,
            )
        record = parse_object(await request.body())
        try:
            parse_preference(record)
        except ValueError as error:
            raise ApiError(f"The preference cannot be used: {error}.") from None
        kept = {key: record[key] for key in PREFERENCE_KEYS if key in record}
        if not self.preferences.write(**kept):
            raise ApiError(f"Not written: {self.preferences.last_error}.", status=500)
        return JSONResponse({"status": "ok"}, 201)

    def _describe_runs(self) -> list[dict[str, Any]]:
        if self.folder is None or not self.folder.is_dir():
            return []
        return [
            {
                "name": run_name(self.folder, run.folder),
                "kind": _training_kind(run.folder),
                "step": run.step,
                "total_steps": run.steps,
                "state": run.state,
                "is_running": run.state == "running",
                "loss": run.loss,
                "bits_per_byte": run.bits_per_byte,
                "checkpoints": [checkpoint_step(path) for path in list_checkpoints(run.folder)],
            }
            for run in list_runs(self.folder)
        ]

    async def _read_log(self, request: Request, file: str) -> Response:
        since = request.query_params.get("since", "0")
        if not (since.isdecimal() and len(since) < 16):
            raise ApiError("since must be 0, or the `next` of an earlier answer.", "since")
        name = request.path_params["name"]
        runs = {} if self.folder is None else await asyncio.to_thread(find_runs, self.folder)
        if name not in runs:
            raise not_found(f"There is no run {name!r}.", "run_not_found")
        lines, position = await asyncio.to_thread(_read_lines, runs[name] / file, int(since))
        return _json({"lines": lines, "next": position})


def _json(content: dict[str, Any]) -> Response:
    return Response(dump_json(content), media_type="application/json")  # NaN is null


def _training_kind(run: Path) -> str:
    """Return pretrain, sft or dpo; "" where the recipe cannot be read."""
    with suppress(OSError, ValueError):
        data = load_recipe(str(run / "recipe.toml")).data
        return "pretrain" if isinstance(data, DataConfig) else TUNING_COMMANDS[data.kind]
    return ""


def _read_lines(path: Path, start: int) -> tuple[list[Any], int]:
    """Return the JSON objects on complete lines from a byte on, and where the next line starts."""
    try:
        with path.open("rb") as file:
            start = min(start, file.seek(0, os.SEEK_END))  # another file may be in its place
            file.seek(start)
            content = file.read(MAX_LOG_BYTES)
    except FileNotFoundError:
        return [], 0
    complete = content[: content.rfind(b"\n") + 1]
    found = []
    for line in complete.splitlines():
        with suppress(ValueError):  # torn by a kill
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)], start + len(complete)
