"""Work that only informs, such as a page, a plot or a comparison: its failure ends nothing else."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from gnano.utils.terminal import echo_stderr


@contextmanager
def best_effort(artifact: str) -> Iterator[None]:
    """Note on stderr, in a sentence, why the block could not make `what`, such as "page"."""
    try:
        yield
    except Exception as error:  # whatever it is, the finished work before it stays finished
        if os.environ.get("GNANO_TRACEBACK"):
            echo_stderr(traceback.format_exc())
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        reason = str(error).partition("\n")[0].rstrip(".")
        echo_stderr(f"No {artifact} ({kind}{reason}); all that was finished before it is kept.")
