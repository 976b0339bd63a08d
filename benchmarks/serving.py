"""Speed of `gnano serve`, compared with its bare engine and with llama.cpp's server.

    python benchmarks/serving.py                                shape 124m, random weights
    python benchmarks/serving.py --shape demo --clients 8 --rounds 5

Runs on the CPU, in turns within one run: the engine alone in this process, `gnano serve` and
llama.cpp's server (`pip install xllamacpp`) in processes of their own, with the same weights in
the same precision, the same threads, and a prompt of its own for each text. Clients are raw
sockets, because a client library on the same cores costs up to a millisecond of each token. Also
measured on the server: the longest pause of running streams while a prompt as long as the context
joins, the time to the first token of a chat's second turn, and the time from a hang-up to a free
row.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gnano.config.inference_config import SamplingParams
from gnano.config.model_config import PRESETS, ModelConfig
from gnano.export.formats import TORCH_DTYPES, export_model
from gnano.infer.engine import Engine
from gnano.infer.request import Request
from gnano.model.hf_io import save_model
from gnano.model.transformer import GPT
from gnano.tokenizer.gpt2 import load_gpt2_tokenizer

PROMPT_TOKENS = 16
LLAMA_SERVER = """
import sys, xllamacpp as x
params = x.CommonParams()
params.model.path, threads, params.n_parallel = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.n_ctx = params.n_parallel * int(sys.argv[4])
server = x.Server(params)
print("Serving at", server.listening_address, flush=True)
sys.stdin.read()
"""


def save_random_model(shape: str, dtype: str, folder: Path) -> ModelConfig:
    """Write a model with random weights and GPT-2's tokenizer."""
    config = ModelConfig(**(vars(PRESETS[shape]) | {"vocab_size": 50_257}))
    torch.manual_seed(0)
    model = GPT.from_config(config).to(TORCH_DTYPES[dtype])
    tokenizer = load_gpt2_tokenizer()
    tokenizer.save(folder, config.block_size)
    save_model(model, folder, tokenizer.end_of_text_id)
    return config


def random_ids(seed: int, length: int) -> list[int]:
    """Return a prompt of its own; the last id is never the end of a text."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(50_000, (length,), generator=generator).tolist()
    return ids


@dataclass
class Stream:
    """What a client saw: when it asked, and when each event came."""

    asked: float
    events: list[float] = field(default_factory=list)

    @property
    def first_token(self) -> float:
        return self.events[0] - self.asked

    @property
    def longest_pause(self) -> float:
        pairs = zip(self.events, self.events[1:], strict=False)
        return max((after - before for before, after in pairs), default=0.0)


class Server:
    """A server process, and requests to it over raw sockets."""

    def __init__(self, command: list[str], threads: int) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout
        output = []
        for line in self.process.stdout:
            output.append(line)
            if "http://" in line and ":" in line.split("http://")[1]:
                host, port = line.split("http://")[1].split()[0].strip("/.").split(":")
                self.address = host, int(port)
                return
        raise RuntimeError("".join(output))

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any]) -> AsyncIterator[asyncio.StreamReader]:
        """Send a request; the connection is cut when the block ends."""
        reader, writer = await asyncio.open_connection(*self.address)
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{status!r} {await reader.read(2_000)!r}")
        yield reader
        writer.transport.abort()

    async def get(self, path: str) -> str:
        reader, writer = await asyncio.open_connection(*self.address)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.read()
        writer.close()
        return answer.decode()

    async def complete(self, prompt: list[int], tokens: int, seed: int = 0) -> Stream:
        """Stream a completion to its end."""
        seen = Stream(time.perf_counter())
        body = {
            "model": "model", "prompt": prompt, "max_tokens": tokens, "stream": True, "seed": seed,
            "temperature": 1.0, "logit_bias": {"50256": -100},
        }  # fmt: skip
        async with self.post("/v1/completions", body) as reader:
            async for line in reader:
                if line.startswith(b"data: [DONE]"):
                    return seen
                if line.startswith(b"data: "):
                    seen.events.append(time.perf_counter())
        raise RuntimeError("the stream was cut")


def run_engine(engine: Engine, clients: int, tokens: int, seed: int) -> float:
    """Return the bare engine's tokens per second."""
    batch = engine.new_batch(clients)
    started = time.perf_counter()
    for number in range(clients):
        sampling = SamplingParams(temperature=1.0, seed=number, logit_bias=((50_256, -100.0),))
        ids = tuple(random_ids(seed + number, PROMPT_TOKENS))
        batch.add(Request(prompt_ids=ids, max_new_tokens=tokens, sampling=sampling))
    while batch.active or batch.waiting:
        batch.step()
    return clients * tokens / (time.perf_counter() - started)


def run_clients(server: Server, clients: int, tokens: int, seed: int) -> float:
    """Return a server's tokens per second with this many clients at once."""

    async def run() -> float:
        started = time.perf_counter()
        await asyncio.gather(
            *(
                server.complete(random_ids(seed + number, PROMPT_TOKENS), tokens, number)
                for number in range(clients)
            )
        )
        return clients * tokens / (time.perf_counter() - started)

    return asyncio.run(run())


async def measure_pause(server: Server, context: int) -> float:
    """Return the longest pause of 7 streams, in plain steps, while a long prompt joins them."""
    started = [
        asyncio.create_task(server.complete(random_ids(n, PROMPT_TOKENS), 160)) for n in range(7)
    ]
    await asyncio.sleep(1.0)
    joined = time.perf_counter()
    long = await server.complete(random_ids(99, context - 4), 4)
    ended = joined + long.first_token
    steps: list[float] = []
    pauses: list[float] = []
    for stream in await asyncio.gather(*started):
        pairs = zip(stream.events, stream.events[1:], strict=False)
        for before, after in pairs:
            (pauses if before < ended and after > joined else steps).append(after - before)
    return max(pauses) / statistics.median(steps)


async def measure_second_turn(server: Server, context: int) -> float:
    """Return a chat's time to the first token of its second turn, as a share of a cold one."""
    length = context * 3 // 4
    shares = []
    for seed in range(200, 203):
        first = random_ids(seed, length)
        await server.complete(first, 8)
        warm = await server.complete([*first, *random_ids(seed + 100, 16)], 4)
        cold = await server.complete(random_ids(seed + 200, length + 16), 4)
        shares.append(warm.first_token / cold.first_token)
    return statistics.median(shares)


async def measure_hang_up(server: Server) -> float:
    """Return the seconds from a hang-up to a free row."""
    body = {"model": "model", "prompt": random_ids(7, 16), "max_tokens": 900, "stream": True}
    async with server.post("/v1/completions", body) as reader:
        for _ in range(12):
            await reader.readline()
        assert not await is_idle(server)
    hung_up = time.perf_counter()
    while not await is_idle(server):
        pass
    return time.perf_counter() - hung_up


async def is_idle(server: Server) -> bool:
    lines = (await server.get("/metrics")).splitlines()
    return not any(
        line.startswith("gnano_texts_running") and float(line.split()[-1]) for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shape", default="124m", choices=list(PRESETS))
    parser.add_argument("--clients", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="of each text")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model")
        path.mkdir()
        context = save_random_model(args.shape, args.dtype, path).block_size
        engine = Engine.load(path, "cpu", dtype=args.dtype)
        engine.prepare_for_batching()
        gguf = export_model(path, "gguf", args.dtype, Path(folder, "model.gguf")).path
        print(f"{args.shape} in {args.dtype}, {args.threads} threads, {args.tokens} tokens a text")
        for clients in args.clients:
            serve = [sys.executable, "-m", "gnano", "serve", str(path), "--port", "0"]
            options = ["--dtype", args.dtype, "--threads", str(args.threads), "--device", "cpu"]
            llama = [sys.executable, "-c", LLAMA_SERVER, str(gguf), str(args.threads)]
            commands = {
                "gnano serve": [*serve, "--parallel", str(clients), *options],
                "llama.cpp": [*llama, str(clients), str(context)],
            }
            servers = {name: Server(command, args.threads) for name, command in commands.items()}
            try:
                compare(engine, servers, clients, args.tokens, args.rounds)
                if clients == args.clients[0]:
                    measure_latencies(servers["gnano serve"], context)
            finally:
                for server in servers.values():
                    server.close()


def compare(
    engine: Engine, servers: dict[str, Server], clients: int, tokens: int, rounds: int
) -> None:
    """Print the speeds of the engine and the servers, in turns, and their ratios."""
    runs: dict[str, Callable[[int], float]] = {
        "engine": partial(run_engine, engine, clients, tokens)
    }
    for name, server in servers.items():
        runs[name] = partial(run_clients, server, clients, tokens)
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):  # the first warms up
        for name, run in runs.items():
            speed = run(1_000 * number)
            if number:
                speeds[name].append(speed)
    print(f"\n{clients} clients, {rounds} rounds: median (lowest to highest)")
    for name, values in speeds.items():
        print(f"  {name:<26} {describe(values)} tokens/s")
    for name in ("engine", "llama.cpp"):
        pairs = zip(speeds["gnano serve"], speeds[name], strict=True)
        print(f"  {f'gnano serve / {name}':<26} {describe([a / b for a, b in pairs], 2)}")


def describe(values: list[float], digits: int = 1) -> str:
    """Return the median and the range of values."""
    low, middle, high = (f(values) for f in (min, statistics.median, max))
    return f"{middle:8.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def measure_latencies(server: Server, context: int) -> None:
    """Print what a user waits for."""
    figures: dict[str, Awaitable[float]] = {
        "longest pause while a long prompt joins, in plain steps": measure_pause(server, context),
        "first token of a second turn / of a cold prompt": measure_second_turn(server, context),
        "seconds from a hang-up to a free row": measure_hang_up(server),
    }
    for name, figure in figures.items():

        async def run(one: Awaitable[float] = figure) -> float:
            return await one

        print(f"  {name}: {asyncio.run(run()):.3f}")


if __name__ == "__main__":
    main()
