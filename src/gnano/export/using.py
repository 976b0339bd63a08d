"""How does each tool open what is published?"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gnano.export.markdown import fenced
from gnano.utils.shell import shell_command
from gnano.utils.text import read_text


def loading(folder: Path, repo: str, files: Sequence[str], question: str) -> str:
    name, prompt = repo.split("/")[-1], "Once upon a time"
    start = _start(folder)
    ask = f'ids = tokenizer({_quoted(start + prompt)}, return_tensors="pt")'
    if question:
        prompt = question
        ask = (
            f'messages = [{{"role": "user", "content": {_quoted(prompt)}}}]\n'
            f"ids = tokenizer.apply_chat_template(\n"
            f'    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n)'
        )
    python = (
        f"from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{repo}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{repo}")\n{ask}\n'
        f"print(tokenizer.decode(model.generate(**ids, max_new_tokens=60)[0]))\n"
    )
    words = ("chat", name) if question else ("generate", name, prompt)
    gnano = shell_command("gnano", *words)
    tools = [
        ("transformers", python, "python"),
        ("auto-g-nano", f"hf download {repo} --local-dir {name}\n{gnano}", "sh"),
        ("vLLM", f"vllm serve {repo}", "sh"),
        ("mlx-lm", shell_command("mlx_lm.generate", "--model", repo, "--prompt", prompt), "sh"),
    ]
    tools += [
        (
            "llama.cpp",
            shell_command("llama-cli", "--hf-repo", repo, "--hf-file", file, "-p", prompt),
            "sh",
        )
        for file in files
        if file.endswith(".gguf")
    ]
    return "## How to use it\n\n" + "\n\n".join(
        f"With {tool}:\n\n{fenced(text, kind)}" for tool, text, kind in tools
    )


def _quoted(text: str) -> str:
    """A string of Python in double quotes, as JSON writes it too."""
    return json.dumps(text, ensure_ascii=False)


def _start(folder: Path) -> str:
    """What a text has to begin with, where the tokenizer does not put it there by itself."""
    with suppress(OSError, ValueError):
        settings = json.loads(read_text(folder / "tokenizer_config.json"))
        if settings.get("add_bos_token") is False and isinstance(settings["bos_token"], str):
            return str(settings["bos_token"])
    return ""
