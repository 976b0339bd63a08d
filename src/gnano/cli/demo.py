"""Train a small language model on the text of this Python installation, and sample from it.

Then it is fine-tuned on questions about Python's library, and answers some.

Interrupted with Ctrl-C, the same command resumes; run again when complete, it shows its samples.

command examples:
  gnano demo
  gnano demo --train.steps 100 --out runs/short     a shorter run, in another folder
  gnano demo --questions 0                          without the fine-tuning
"""

from pathlib import Path

from gnano.cli.args import parse_recipe
from gnano.utils.formatting import format_shell_command
from gnano.utils.terminal import echo

NEXT_STEPS = """
Next steps:
  {generate}
  {chat:<48}  ask it about Python's library
  {serve:<48}  the same in a browser, with its curves
  {info}
  gnano info 1b                                     describe the reference model
"""


def main(argv: list[str]) -> int | None:
    """Run the demo, and print commands to try next."""
    out = (Path, Path("runs/demo"), "folder of the run")
    questions = (int, 12_000, "questions for the fine-tuning, in the folder OUT-sft; 0: none")
    recipe, options = parse_recipe("demo", __doc__, argv, "demo", out=out, questions=questions)
    from gnano.demo.demo_run import run_demo

    result = run_demo(recipe, options.out, options.questions)
    if result.stopped_by is not None:
        echo(f"Stopped after step {result.step:,}; the same command resumes from there.")
        return result.stopped_by
    prompt = ("The function returns", "--tokens", "200")
    tuned = options.out.with_name(f"{options.out.name}-sft")
    commands = {
        "generate": format_shell_command("gnano", "generate", options.out, *prompt),
        "chat": format_shell_command("gnano", "chat", tuned),
        "serve": format_shell_command("gnano", "serve", tuned, options.out),
        "info": format_shell_command("gnano", "info", options.out),
    }
    echo(NEXT_STEPS.format(**commands), end="")
    return None
