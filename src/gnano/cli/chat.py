"""`gnano chat`: talk with a checkpoint."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from gnano.cli.arguments import call


def chat(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    format: str | None = None,
    system: str = "",
    prompt: str | None = None,
    tokens: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    seed: int | None = None,
    device: str = "auto",
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    quant: Literal["", "int8", "int4"] = "",
) -> int:
    """Talk with a run's newest checkpoint, or with any Llama folder like it; /help says how.

    examples:
      gnano chat runs/demo-sft
      gnano chat runs/demo-sft --temperature 0.3 --system "Answer in one sentence."
      gnano chat runs/demo-sft --prompt "Which module has sqrt?"
      gnano chat runs/demo-sft < questions.txt > answers.txt

    Args:
        checkpoint: A run, a checkpoint, or a Hugging Face folder of a Llama model.
        format: alpaca, chatml, plain, or a file; by default what the checkpoint was tuned with.
        system: What the model is told before the first question.
        prompt: Answer this one question, and end.
        tokens: Tokens of an answer at most.
        temperature: 0 takes the likeliest token; higher is more varied.
        top_k: Draw from the k likeliest tokens only; 0 is all.
        top_p: Draw from the likeliest tokens that together reach this probability.
        min_p: Draw only from tokens at least this share as likely as the likeliest.
        repetition_penalty: Makes what the text already has less likely; 1 is off, 1.1 a little.
        no_repeat_ngram: Never write a run of so many tokens twice; 0 is off.
        seed: Same seed and questions, same answers.
        device: cpu, cuda …; auto is a GPU if there is one.
        dtype: What to compute in; auto is bf16 on a GPU, and for a large model on a CPU that can.
        quant: Keep the matrices in 8 or 4 bits: faster, and a little less exact.
    """
    from gnano.chat import Settings, open_session, talk
    from gnano.infer import Sampling

    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        no_repeat_ngram=no_repeat_ngram,
        seed=seed,
    )
    settings = Settings(sampling=sampling, tokens=tokens)
    session, note = open_session(checkpoint, format, settings, system, device, dtype, quant)
    return talk(session, note, prompt, str(checkpoint))


def main(argv: list[str]) -> int:
    return call(chat, "chat", argv)
