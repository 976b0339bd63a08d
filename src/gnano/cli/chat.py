"""`gnano chat`: talk with a checkpoint."""

from pathlib import Path
from typing import Annotated

import tyro

from gnano.cli.args import LoadArgs, SamplingArgs
from gnano.config.inference_config import LoadConfig, SamplingParams


def chat(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    format: str | None = None,
    system: str = "",
    prompt: str | None = None,
    tokens: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 256,
    sampling: SamplingArgs = SamplingParams(),  # noqa: B008 frozen
    load_config: LoadArgs = LoadConfig(),  # noqa: B008 frozen
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
        sampling: How tokens are drawn.
        loading: How the weights are kept.
    """
    from gnano.chat.conversation import ChatSettings
    from gnano.chat.launch import open_session, run_chat

    settings = ChatSettings(sampling=sampling, tokens=tokens)
    session, note = open_session(checkpoint, format, settings, system, load_config)
    return run_chat(session, note, prompt, str(checkpoint))
