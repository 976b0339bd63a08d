"""The command `gnano demo`: the full pipeline on text from this machine, in minutes."""

from pathlib import Path

from gnano.cli.args import exit_code, parse_recipe
from gnano.utils.shell import format_shell_command
from gnano.utils.terminal import echo

DESCRIPTION = """\
Train a small language model on the text of this Python installation, and sample from it;
then fine-tune it on questions about Python's library, and let it answer.

Interrupted with Ctrl-C, the same command resumes; run again when complete, it shows its samples.

command examples:
  gnano demo
  gnano demo --train.steps 100 --out runs/short     a shorter run, in another folder
  gnano demo --questions 0                          without the fine-tuning
"""

NEXT_STEPS = """
Next steps:
  {generate}
  {chat:<48}  ask it about Python's library
  {info}
  gnano info 1b                                     describe the reference model
"""


def main(argv: list[str]) -> int:
    """Run the demo, and print commands to try next."""
    out = (Path, Path("runs/demo"), "folder of the run")
    questions = (int, 12_000, "questions for the fine-tuning, in the folder OUT-sft; 0: none")
    recipe, options = parse_recipe("demo", DESCRIPTION, argv, "demo", out=out, questions=questions)
    from gnano.demo.demo_run import run_demo

    result = run_demo(recipe, options.out, options.questions)
    if result.stopped_by is not None:
        echo(f"Stopped after step {result.step:,}; the same command resumes from there.")
        return exit_code(result.stopped_by)
    prompt = ("The function returns", "--tokens", "200")
    tuned = options.out.with_name(f"{options.out.name}-sft")
    commands = {
        "generate": format_shell_command("gnano", "generate", options.out, *prompt),
        "chat": format_shell_command("gnano", "chat", tuned),
        "info": format_shell_command("gnano", "info", options.out),
    }
    echo(NEXT_STEPS.format(**commands), end="")
    return 0
