"""The command `gnano chat`: chats with a checkpoint."""

from gnano.cli.args import LoadArgs, ModelArg, SamplingArgs, TokensArg, model_folder
from gnano.config.inference_config import LoadConfig, SamplingParams


def chat(
    checkpoint: ModelArg,
    format: str | None = None,
    system: str = "",
    prompt: str | None = None,
    tokens: TokensArg = 256,
    sampling: SamplingArgs = SamplingParams(),
    load_config: LoadArgs = LoadConfig(),
) -> int:
    """Chat with a run's newest checkpoint, or with a model folder; /help lists commands.

    command examples:
      gnano chat runs/demo-sft
      gnano chat runs/demo-sft --temperature 0.3 --system "Answer in one sentence."
      gnano chat runs/demo-sft --prompt "Which module has sqrt?"
      gnano chat runs/demo-sft < questions.txt > answers.txt

    Args:
        format: alpaca, chatml, plain, or a file; by default the template used in fine-tuning.
        system: System message before the first question.
        prompt: Answer this one question, and exit.
        tokens: Maximum tokens per answer.
    """
    from gnano.chat.conversation import ChatSettings
    from gnano.chat.repl import run_chat

    settings = ChatSettings(**vars(sampling), tokens=tokens)
    checkpoint = model_folder(checkpoint)
    return run_chat(checkpoint, load_config, settings, format, system, prompt)
