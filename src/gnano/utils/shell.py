"""Commands that are shown for a person to copy into a shell."""

import shlex
from pathlib import Path


def format_shell_command(*arguments: str | Path) -> str:
    """Join the words of a command, each quoted where a shell would split or expand it.

    A path that begins with a dash is written ./-path, as it would be taken for an option.
    """
    words = (
        f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
        for word in arguments
    )
    return shlex.join(words)
