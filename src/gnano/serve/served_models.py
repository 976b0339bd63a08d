"""The models that a server offers: their names, and which of them are in memory.

    runs/demo              demo        the newest checkpoint when the server started;
                                       with --follow, the newest there is
                           demo@600    each checkpoint of the run, also those that appear later
    runs/demo/checkpoints/step-00000600    demo@600
    models/SmolLM2         SmolLM2     a folder

A name is looked up in this list; no part of a request is used as a path. A model is loaded when it
is first used. If the memory does not suffice, those go that were not used for the longest time.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from gnano.checkpoint.run_checkpoints import (
    CHECKPOINTS_DIR,
    checkpoint_step,
    find_checkpoint,
    list_checkpoints,
    lock_for_reading,
    model_name,
    unlock,
)
from gnano.config.inference_config import LoadConfig
from gnano.config.serve_config import ServeConfig
from gnano.data.sft.chat_template import read_template
from gnano.infer.continuous_batching import ContinuousBatch
from gnano.infer.engine import Engine
from gnano.infer.prefix_cache import PrefixCache
from gnano.model.flops import kv_cache_bytes_per_token, num_parameters
from gnano.model.hf_io import load_config, read_json_object
from gnano.serve.api_errors import ApiError, not_found, server_error
from gnano.serve.model_worker import LoadedModel, ModelWorker
from gnano.utils.formatting import format_gb
from gnano.utils.platform_support import (
    available_cores,
    available_memory_bytes,
    resolve_device,
)
from gnano.utils.terminal import echo_stderr

MEMORY_SHARE = 0.8  # of the available memory that models and their caches may use
CPU_PARALLEL, GPU_PARALLEL = 8, 32
FOLLOW_SECONDS = 2.0  # between looks for new checkpoints
QUANTIZED_BYTES = {"int8": 1.1, "int4": 0.6}  # of a weight, with scales


@dataclass(frozen=True)
class ModelEntry:
    """A model that is served."""

    id: str
    folder: Path
    run: str | None = None  # name of its run
    step: int | None = None

    @property
    def fingerprint(self) -> str:
        """What its texts come from, although a run's name may mean another checkpoint later."""
        return self.id if self.step is None or "@" in self.id else f"{self.id}@{self.step}"


class ServedModels:
    """The names of all models, and those in memory, the least recently used one first."""

    def __init__(
        self, paths: Sequence[Path], worker: ModelWorker, loading: LoadConfig, config: ServeConfig
    ) -> None:
        self.worker, self.config = worker, config
        device = resolve_device(loading.device)
        self.is_cpu = not device.startswith("cuda")
        threads = loading.threads
        if not threads and (cores := available_cores()) >= 4:
            threads = cores - 1  # one for everything but the models
        self.loading = replace(loading, device=device, threads=threads)
        self.parallel = config.parallel or (CPU_PARALLEL if self.is_cpu else GPU_PARALLEL)
        free = available_memory_bytes() if self.is_cpu else torch.cuda.mem_get_info(device)[0]
        self.max_bytes = None if free is None else int(MEMORY_SHARE * free)
        self.loaded: dict[Path, LoadedModel] = {}
        self.lock = asyncio.Lock()  # one model is loaded at a time
        self.runs: dict[str, Path] = {}
        self.fixed: dict[str, ModelEntry] = {}
        short_names = [model_name(path) for path in paths]
        for path, short in zip(paths, short_names, strict=True):
            name = short if short_names.count(short) == 1 else str(path)
            folder = find_checkpoint(path)
            is_checkpoint = folder.parent.name == CHECKPOINTS_DIR
            step = checkpoint_step(folder) if is_checkpoint else None
            if folder != path:
                self.runs[name] = path
            elif is_checkpoint:
                name = f"{short}@{step}"
            if name in self.fixed:
                raise ValueError(f"{path} is named twice; name each model once.")
            self.fixed[name] = ModelEntry(name, folder, short if is_checkpoint else None, step)
            self._check_size(self.fixed[name])
        if config.follow and not self.runs:
            raise ValueError("--follow needs a run, such as runs/demo; no model here is one.")

    def list_entries(self) -> dict[str, ModelEntry]:
        """Return all models by id: those of the command line first, then the runs' checkpoints."""
        entries = dict(self.fixed)
        for name, path in self.runs.items():
            for folder in reversed(list_checkpoints(path)):
                step = checkpoint_step(folder)
                entry = ModelEntry(f"{name}@{step}", folder, self.fixed[name].run, step)
                entries.setdefault(entry.id, entry)
        return entries

    def find(self, name: str) -> ModelEntry:
        """Return the model of a name, the first one for "" ."""
        entries = self.list_entries()
        entry = entries.get(name) if name else next(iter(entries.values()))
        if entry is None:
            known = ", ".join(list(entries)[:20])
            raise ApiError(
                f"There is no model {name!r} here; there are {known}.",
                "model",
                "model_not_found",
                404,
            )
        return entry

    def describe(self, entry: ModelEntry) -> dict[str, Any]:
        """Return a model as an object of `/v1/models`."""
        static = _describe_folder(entry.folder)
        loaded = self.loaded.get(entry.folder)
        context = min(self.config.context or static["context"], static["context"])
        details = {
            **static["x_gnano"],
            "context": context,
            "step": entry.step,
            "run": entry.run,
            "dtype": str(loaded.dtype).removeprefix("torch.") if loaded else None,
            "is_loaded": loaded is not None,
        }
        owner = {"object": "model", "owned_by": "gnano", "created": static["created"]}
        return {"id": entry.id, **owner, "x_gnano": details}

    @asynccontextmanager
    async def use(self, entry: ModelEntry) -> AsyncIterator[LoadedModel]:
        """Yield a model, loaded if necessary; it stays in memory until the block ends."""
        if entry.folder not in self.loaded:
            async with self.lock:
                if entry.folder not in self.loaded:
                    try:
                        load = partial(self._load, entry, self._make_room(entry))
                        self.loaded[entry.folder] = await self.worker.call(load)
                    except (ValueError, OSError) as error:
                        echo_stderr(f"gnano: {entry.id} cannot be loaded: {error}")
                        raise server_error(f"{entry.id} cannot be loaded.") from None
        model = self.loaded.pop(entry.folder)
        self.loaded[entry.folder] = model  # the last one is the most recently used
        model.users += 1
        try:
            yield model
        finally:
            model.users -= 1

    async def follow_runs(self) -> None:
        """Load the checkpoints that appear; the name of their run then means the newest one."""
        unusable: set[Path] = set()
        replaced: set[Path] = set()
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            for name, run in self.runs.items():
                entry, found = self.fixed[name], await asyncio.to_thread(list_checkpoints, run)
                if not found or found[-1] == entry.folder or found[-1] in unusable:
                    continue
                newest = replace(entry, folder=found[-1], step=checkpoint_step(found[-1]))
                try:
                    async with self.use(newest):
                        self.fixed[name] = newest
                except ApiError as error:
                    if error.status != 503:  # else there was no memory
                        unusable.add(newest.folder)
                    continue
                replaced.add(entry.folder)
                echo_stderr(f"{name} is {newest.fingerprint} now")
            for folder in list(replaced):
                if folder not in self.loaded or not self.loaded[folder].users:
                    replaced.discard(folder)
                    self._let_go(folder)

    def _load(self, entry: ModelEntry, let_go: list[LoadedModel]) -> LoadedModel:
        """Load a model; runs in the worker's thread."""
        if let_go:
            let_go.clear()
            gc.collect()
        if not lock_for_reading(entry.folder):
            raise not_found(f"{entry.id} is no longer there.", "model_not_found")
        engine = Engine.load(entry.folder, **vars(self.loading))

        def new_batch() -> ContinuousBatch:
            cache = PrefixCache(self.config.cache_mb * 10**6)
            return engine.new_batch(self.parallel, self.config.context or None, cache)

        template = read_template(entry.folder)
        size = self.estimate_bytes(entry)
        longest = int(engine.tokenizer.token_bytes.max())
        return LoadedModel(engine, template, new_batch, new_batch(), self.parallel, size, longest)

    def estimate_bytes(self, entry: ModelEntry) -> int:
        """Return about how much memory a model needs, with the caches of all its texts."""
        config, stored = load_config(entry.folder), _stored_bytes(entry.folder)
        stored = {"fp32": 4, "bf16": 2, "fp16": 2}.get(self.loading.dtype, stored)
        weights = num_parameters(config) * QUANTIZED_BYTES.get(self.loading.quant, stored)
        context = min(self.config.context or config.block_size, config.block_size)
        cache = self.parallel * context * kv_cache_bytes_per_token(config, stored)
        return int(weights + cache + self.config.cache_mb * 1e6)

    def has_room(self, entry: ModelEntry) -> bool:
        """Return whether a model fits beside those in memory."""
        used = sum(model.num_bytes for model in self.loaded.values())
        return self.max_bytes is None or used + self.estimate_bytes(entry) <= self.max_bytes

    def _check_size(self, entry: ModelEntry) -> None:
        needed = self.estimate_bytes(entry)
        if self.max_bytes is not None and needed > self.max_bytes:
            raise ValueError(
                f"{entry.id} needs about {format_gb(needed)} with the caches of {self.parallel} "
                f"texts and of earlier prompts, and {format_gb(self.max_bytes)} may be used: lower "
                f"--parallel, --context or --cache-mb, or set --quant."
            )

    def _make_room(self, entry: ModelEntry) -> list[LoadedModel]:
        """Remove the least recently used models from the list until this one fits; return them."""
        let_go: list[LoadedModel] = []
        while self.loaded and not self.has_room(entry):
            idle = next((folder for folder, m in self.loaded.items() if not m.users), None)
            if idle is None:
                raise ApiError(
                    f"{entry.id} does not fit in memory beside the models in use; try again later.",
                    code="models_busy",
                    status=503,
                    headers={"retry-after": "5"},
                )
            let_go.append(self.loaded[idle])
            self._let_go(idle)
        return let_go

    def _let_go(self, folder: Path) -> None:
        """Remove a model from the list; a running training may then remove its checkpoint."""
        self.loaded.pop(folder, None)
        if all(entry.folder != folder for entry in self.fixed.values()):
            unlock(folder)


@cache
def _describe_folder(folder: Path) -> dict[str, Any]:
    config = load_config(folder)
    return {
        "created": int((folder / "config.json").stat().st_mtime),
        "context": config.block_size,
        "x_gnano": {
            "vocab_size": config.vocab_size,
            "parameters": num_parameters(config),
            "has_chat_template": read_template(folder) is not None,
        },
    }


def _stored_bytes(folder: Path) -> int:
    content = read_json_object(folder / "config.json")
    return 4 if (content.get("dtype") or content.get("torch_dtype")) == "float32" else 2
