"""`gnano demo`: from this machine's own text to a model that writes and answers, in minutes."""

from pathlib import Path

from gnano.cli.args import parse_recipe
from gnano.utils.formatting import format_shell_command
from gnano.utils.terminal import echo

DESCRIPTION = """\
Train a small language model on the text of this Python installation, and let it write;
then tune it on questions about Python's library, and let it answer.

Interrupted with Ctrl-C, the same command goes on; run again when complete, it shows its samples.

examples:
  gnano demo
  gnano demo --train.steps 100 --out runs/short     a shorter one, beside it
  gnano demo --questions 0                          it writes, and is not taught to answer
"""

NEXT_STEPS = """
Go on:
  {generate}
  {chat:<48}  ask it about Python's library
  {info}
  gnano info 1b                                     the reference model, in figures
"""


def main(argv: list[str]) -> int:
    out = (Path, Path("runs/demo"), "where the run is written")
    questions = (int, 12_000, "questions it is then tuned on, in the folder OUT-sft; 0: none")
    recipe, own = parse_recipe("demo", DESCRIPTION, argv, "demo", out=out, questions=questions)
    from gnano.demo.demo_run import run_demo

    result = run_demo(recipe, own.out, own.questions)
    if result.stopped_by is not None:
        echo(f"Stopped after step {result.step:,}; the same command goes on from there.")
        return 128 + result.stopped_by
    tuned = own.out.with_name(f"{own.out.name}-sft")
    prompt = ("The function returns", "--tokens", "200")
    generate = format_shell_command("gnano", "generate", own.out, *prompt)
    chat, info = (
        format_shell_command("gnano", "chat", tuned),
        format_shell_command("gnano", "info", own.out),
    )
    echo(NEXT_STEPS.format(generate=generate, chat=chat, info=info), end="")
    return 0
