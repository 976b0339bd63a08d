"""Command-line interface: `gnano COMMAND …`, one module per command, loaded when it is used.

A user's mistake exits with one sentence and code 2, Ctrl-C with 130. An unforeseen error keeps its
traceback; `GNANO_TRACEBACK=1` shows it for mistakes too.
"""

import errno
import importlib
import keyword
import os
import signal
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from gnano import __version__
from gnano.utils.platform_support import WINDOWS_ERROR
from gnano.utils.stop_request import CHECKPOINT_THREAD_NAME, TOKENIZER_THREAD_NAME
from gnano.utils.terminal import drop_failed_writes, echo, echo_stderr, prepare_streams

# by name: a `summary`, and whether the command `resumes` and `prints` (see the file)
COMMANDS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("commands.toml").read_text("utf-8")
)

USAGE = f"""\
gnano {__version__}: train your own language model, from raw text to a chat model.

usage: gnano COMMAND [options]        gnano COMMAND --help for examples

{chr(10).join(f"  {name:<10} {command['summary']}" for name, command in COMMANDS.items())}

first steps:
  gnano demo                                   the full pipeline, small, in minutes
  gnano info 1b                                the reference model
  gnano plan 1b --gpu h200 --price 3.5         its cost, before you pay for a GPU
  gnano prepare 10m --help                     turn your own text into token shards
"""

ERRNO_ADVICE = {
    errno.ENOSPC: "free some space and run the same command again: finished work is kept",
    errno.EDQUOT: "free some of your quota and run the same command again",
    errno.EACCES: "choose a place that you may write to, or change its permissions",
    errno.EPERM: "choose a place that you may write to, or change its permissions",
    errno.EROFS: "choose a place that is not read-only",
}


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command that the arguments name; leaves through SystemExit."""
    arguments = sys.argv[1:] if argv is None else argv
    prepare_streams()
    drop_failed_writes("stderr")
    try:
        try:
            code = _run_command(arguments)
            # a signal has stopped a run, which is then complete up to a step
            sys.exit(128 + code if isinstance(code, signal.Signals) else code or 0)
        finally:
            echo(end="")  # output that other code has printed, such as --help
    except KeyboardInterrupt:
        resumes = COMMANDS.get(arguments[0], {}).get("resumes")
        kept = " Finished work is kept; the same command resumes." if resumes else ""
        echo_stderr(f"\nStopped.{kept}")
        running = {thread.name for thread in threading.enumerate()}
        if running & {CHECKPOINT_THREAD_NAME, TOKENIZER_THREAD_NAME}:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)  # else Python unwinds that thread in the middle of C++, which aborts
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        sys.exit(141)
    except (ValueError, OSError) as error:
        if os.environ.get("GNANO_TRACEBACK"):
            raise
        rank = os.environ.get("RANK", "0")  # of several that a launcher has started
        echo_stderr(f"gnano: {'' if rank == '0' else f'rank {rank}: '}{_error_message(error)}")
        sys.exit(2)


def _run_command(arguments: list[str]) -> int | None:
    """Run a command; return its exit code, or the signal that stopped its run."""
    if sys.platform == "win32":
        raise OSError(WINDOWS_ERROR)
    name = arguments[0] if arguments else "help"
    if name in ("-h", "--help", "help"):
        echo(USAGE, end="")
        return None
    if name in ("-V", "--version"):
        echo(__version__)
        return None
    if name not in COMMANDS:
        raise ValueError(f"There is no command {name!r}; the commands are {', '.join(COMMANDS)}.")
    if not COMMANDS[name].get("prints"):
        drop_failed_writes("stdout")
    module_name = f"{name}_" if keyword.iskeyword(name) else name
    module = importlib.import_module(f"gnano.cli.{module_name}")
    code: int | None
    if hasattr(module, "main"):
        code = module.main(arguments[1:])
    else:  # a function with the module's name
        import tyro

        from gnano.cli.args import PATH_REGISTRY

        function, usage = getattr(module, module_name), f"gnano {name}"
        code = tyro.cli(function, prog=usage, args=arguments[1:], registry=PATH_REGISTRY)
    return code


def _error_message(error: ValueError | OSError) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    name = error.filename2 if is_full and error.filename2 else error.filename  # of a copy: target
    where = f": {name}" if name else ""
    advice = ERRNO_ADVICE.get(error.errno)
    return f"{error.strerror}{where}{f'; {advice}' if advice else ''}."
