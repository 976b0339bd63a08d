"""llama.cpp as a server in a process of its own, from the wheel of xllamacpp.

with LlamaCpp(path) as llama:
    llama.tokenize("text")            ids
    llama.top_logprobs(ids, count)    [(id, log-probability)] of the next token, likeliest first
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

# fp32 keys and values, and no fused attention in fp16: the same arithmetic as ours
SERVER = """
import sys, xllamacpp as x
params = x.CommonParams()
params.model.path, params.n_ctx, params.cpuparams.n_threads = sys.argv[1], 128, 1
params.cache_type_k = params.cache_type_v = x.ggml_type.GGML_TYPE_F32
params.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = x.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


class LlamaCpp:
    """A GGUF file, run by llama.cpp."""

    def __init__(self, path: Path) -> None:
        pytest.importorskip("xllamacpp", reason="llama.cpp (xllamacpp) is not installed")
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", SERVER, str(path)]
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __enter__(self) -> "LlamaCpp":
        assert self.process.stdout and self.process.stderr
        lines = iter(self.process.stdout.readline, "")
        self.address = next((line.strip() for line in lines if line.startswith("http")), "")
        assert self.address, self.process.stderr.read()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def tokenize(self, text: str, add_special: bool = False) -> list[int]:
        options = {"add_special": add_special, "parse_special": False}
        found: list[int] = self._call("/tokenize", {"content": text, **options})["tokens"]
        return found

    def top_logprobs(self, ids: list[int], count: int) -> list[tuple[int, float]]:
        # it tells nothing of a token that ends the text or a part of a character, and tells the
        # probabilities before the bias
        bias = {"logit_bias": [[self.tokenize("a")[-1], 1e6]], "temperature": 0, "n_predict": 1}
        options = {"n_probs": count, "cache_prompt": False, **bias}
        answer = self._call("/completion", {"prompt": ids, **options})
        found = answer["completion_probabilities"][0]["top_logprobs"]
        return [(one["id"], one["logprob"]) for one in found]

    def _call(self, path: str, content: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, json.dumps(content).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
