"""The command `gnano chat`: chats with a checkpoint."""

from gnano.cli.args import LoadArgs, ModelArg, SamplingArgs, TokensArg
from gnano.config.inference_config import LoadConfig, SamplingParams

NOT_TUNED_NOTE = (
    "This checkpoint was not tuned to answer questions; using the Alpaca format (--format)."
)
UNKNOWN_TEMPLATE_NOTE = (
    "This checkpoint's chat template is not supported; using the Alpaca format (--format names "
    "another)."
)


def chat(
    checkpoint: ModelArg,
    format: str | None = None,
    system: str = "",
    prompt: str | None = None,
    tokens: TokensArg = 256,
    sampling: SamplingArgs = SamplingParams(),
    load_config: LoadArgs = LoadConfig(),
) -> int:
    """Chat with a run's newest checkpoint, or with another Llama folder; /help lists commands.

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
    from gnano.chat.conversation import ChatSession, ChatSettings
    from gnano.chat.repl import run_chat
    from gnano.checkpoint.run_checkpoints import find_checkpoint
    from gnano.data.sft.chat_template import (
        ALPACA,
        load_template,
        read_jinja_template,
        read_template,
    )
    from gnano.infer.engine import Engine

    settings = ChatSettings(sampling=sampling, tokens=tokens)
    template = load_template(format) if format else None
    folder = find_checkpoint(checkpoint)
    template = template or read_template(folder)
    engine = Engine.load(folder, **vars(load_config))
    note = ""
    if template is None:
        note = UNKNOWN_TEMPLATE_NOTE if read_jinja_template(folder) else NOT_TUNED_NOTE
    session = ChatSession(engine, template or ALPACA, settings, system)
    return run_chat(session, note, prompt, str(checkpoint))
