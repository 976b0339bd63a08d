"""`gnano generate`: let a checkpoint continue a text."""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.arguments import call


def generate(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    prompt: Annotated[str, tyro.conf.Positional],
    tokens: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 128,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop: tuple[str, ...] = (),
    device: str = "auto",
) -> None:
    """Continue a text with a run's newest checkpoint, or with any Llama folder like it.

    examples:
      gnano generate runs/demo "Once upon a time"
      gnano generate runs/demo "def main(" -n 200 --temperature 0.6 --top-k 40 --seed 1
      gnano generate runs/demo "Question:" --stop Question: --temperature 0

    Args:
        checkpoint: A run, a checkpoint, or a Hugging Face folder of a Llama model.
        prompt: The text to continue; "" begins a new one.
        tokens: Tokens to write at most.
        temperature: 0 takes the likeliest token; higher is more varied.
        top_k: Draw from the k likeliest tokens only; 0 is all.
        top_p: Draw from the likeliest tokens that together reach this probability.
        seed: Same seed, same text.
        stop: End before any of these strings.
        device: cpu, cuda …; auto is a GPU if there is one.
    """
    from gnano.infer import Engine, Sampling

    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    engine = Engine.load(checkpoint, device)
    print(prompt, end="", flush=True)
    for piece in engine.stream(prompt, tokens, sampling, stop):
        print(piece, end="", flush=True)
    print()


def main(argv: list[str]) -> None:
    call(generate, "generate", argv)
