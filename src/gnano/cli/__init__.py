"""`gnano COMMAND …`: one small file a command, loaded only when it is asked for.

A user's mistake ends in one sentence and exit code 2, Ctrl-C in 130. What we did not
foresee keeps its traceback; `GNANO_TRACEBACK=1` shows it for mistakes too.
"""

import errno
import importlib
import keyword
import os
import sys
import threading
from typing import NoReturn

from gnano import __version__
from gnano.utils.platform_support import reject_windows
from gnano.utils.streams import drop_failed_writes, prepare_streams, write_output
from gnano.utils.terminal import echo, echo_stderr

COMMANDS = {
    "demo": "train a small model on this machine's own text and let it write",
    "prepare": "turn documents into token shards",
    "data": "look at a sample of prepared data, verify it, prepare it on many machines",
    "tokenizer": "train a tokenizer, or fetch GPT-2's, and look at what it does",
    "plan": "what a recipe costs on GPUs, and whether it fits",
    "pretrain": "train a model on token shards, or go on where a run stopped",
    "sft": "tune a model to follow instructions",
    "dpo": "tune a model on which of two answers is preferred",
    "eval": "how good a checkpoint is: held-out text, known tasks",
    "compare": "models side by side, with published scores of others",
    "chat": "talk with a checkpoint",
    "generate": "let a checkpoint continue a text",
    "bench": "how fast a checkpoint writes, and what the memory would allow",
    "smoke": "does a checkpoint write at all sensibly",
    "info": "what is in a recipe, a data folder, a run or a checkpoint",
    "runs": "how the runs of a folder stand",
    "weights": "a checkpoint's model alone, as a folder to share",
    "export": "a checkpoint as GGUF, ONNX, safetensors, a PyTorch file",
    "import": "a model of another format, as a folder that all commands here open",
    "publish": "a model on the Hugging Face Hub, with a card of how it was made",
    "merge": "a base model and a LoRA adapter, made one model",
}

# which keep what was finished, and go on from there when they are started again
RESUMABLE_COMMANDS = ("demo", "prepare", "pretrain", "sft", "dpo", "compare", "publish")

USAGE = f"""\
gnano {__version__}: train your own language model, from raw text to a model that talks.

usage: gnano COMMAND [options]        gnano COMMAND --help for examples

{chr(10).join(f"  {name:<10} {what}" for name, what in COMMANDS.items())}

first steps:
  gnano demo                                   all of it, small, in minutes
  gnano info 1b                                what the reference model is
  gnano plan 1b --gpu h200 --price 3.5         what it costs, before a GPU-hour is spent
  gnano prepare 10m --help                     your own text as token shards
"""

ERRNO_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again: what is finished is kept",
    errno.EDQUOT: "free some of your quota and run the same command again",
    errno.EACCES: "choose a place you may write to, or change its permissions",
    errno.EPERM: "choose a place you may write to, or change its permissions",
    errno.EROFS: "choose a place that is not read-only",
}


# their product is what they print: that it cannot be written is a failure; of all others the
# product is a file, and what they print only informs
OUTPUT_COMMANDS = {
    *("data", "tokenizer", "plan", "eval", "compare", "chat", "generate", "bench", "smoke"),
    *("info", "runs"),
}


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command that the arguments name; leaves through SystemExit."""
    arguments = sys.argv[1:] if argv is None else argv
    prepare_streams()
    drop_failed_writes("stderr")
    try:
        try:
            sys.exit(_dispatch(arguments))
        finally:
            write_output()  # what others than us have printed, such as --help
    except KeyboardInterrupt:
        goes_on = " What was finished is kept; the same command goes on."
        echo_stderr(f"\nStopped.{goes_on if arguments[0] in RESUMABLE_COMMANDS else ''}")
        _exit_process(130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.exit(141)
    except (ValueError, OSError) as error:
        if os.environ.get("GNANO_TRACEBACK"):
            raise
        _exit_with_error(_error_message(error))


def _dispatch(arguments: list[str]) -> int | None:
    reject_windows()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        echo(USAGE, end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        echo(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        raise ValueError(f"There is no command {arguments[0]!r}; there are {', '.join(COMMANDS)}.")
    if arguments[0] not in OUTPUT_COMMANDS:
        drop_failed_writes("stdout")
    name = f"{arguments[0]}_" if keyword.iskeyword(arguments[0]) else arguments[0]
    command = importlib.import_module(f"gnano.cli.{name}")
    code: int | None
    if hasattr(command, "main"):
        code = command.main(arguments[1:])
    else:  # one function of the module's name
        from gnano.cli.args import run_function  # loads tyro

        code = run_function(getattr(command, name), arguments[0], arguments[1:])
    return code


def _exit_process(code: int) -> NoReturn:
    """End the process; at once where a thread is in native code, which nothing else ends."""
    names = {thread.name for thread in threading.enumerate()}
    if names & {"saver", "tokenizer training"}:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # else Python unwinds that thread in the middle of C++, which aborts
    sys.exit(code)


def _error_message(error: ValueError | OSError) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    name = error.filename2 if full and error.filename2 else error.filename  # of a copy: where to
    where = f": {name}" if name else ""
    advice = ERRNO_ADVICE.get(error.errno)
    return f"{error.strerror}{where}{f'; {advice}' if advice else ''}."


def _exit_with_error(sentence: str) -> NoReturn:
    rank = os.environ.get("RANK", "0")  # of several that a launcher has started
    echo_stderr(f"gnano: {'' if rank == '0' else f'rank {rank}: '}{sentence}")
    sys.exit(2)
