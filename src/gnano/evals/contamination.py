"""Contamination: the evaluation items that share 13 words with a training document.

The rule is that of preparation (`data/decontamination.py`), the other way round: not which
documents to leave out, but which items to count apart, so that a score can be given for all items
and for the clean ones alone. What is searched is what training read, the token shards:

    shard ─▶ documents, some at a time ─▶ bytes ─▶ text ─▶ NGrams ─▶ runs of 13 words ─▶ items

Each process takes a shard after the other and holds a few documents of it. A worker is a fresh
interpreter with a pipe, so it does not matter what the calling program has loaded; it ends when
its pipe is closed. The result does not depend on the number of workers.
"""

import pickle
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from gnano.data.corpus import Corpus
from gnano.data.ngrams import NGrams
from gnano.data.shards import ShardInfo
from gnano.live import clock
from gnano.utils.host import available_cores

TOGETHER = 2**18  # tokens whose documents are searched together
WORTH = 2**24  # tokens that are searched in the time that a process takes to start
EXAMPLES = 20  # items shown with what they share
PROGRAM = [sys.executable, "-m", "gnano.evals.contamination"]
# of a pipe whose other end is gone
CLOSED = (EOFError, BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True)
class Shared:
    """An example of what an item has in common with a training document."""

    item: int
    words: str  # the first 13 that were found, in lower case
    source: str
    shard: str  # file name without its ending
    document: int  # number in the shard


@dataclass(frozen=True)
class Overlap:
    checked: int  # items that have a run of 13 words at all
    found: tuple[int, ...]  # numbers of those that share one with a training document
    examples: tuple[Shared, ...]  # of the first items found


class Shard(NamedTuple):
    """A shard, by the number of its source and its own."""

    source: int
    number: int


class Hit(NamedTuple):
    """Where a run of 13 words is first in a shard."""

    kind: int
    words: str
    document: int


Answer = tuple[Shard, int, list[Hit]]  # tokens that were searched, and what is new in them


def find_contamination(
    corpus: Corpus,
    items: Sequence[str],
    show: Callable[[str], None] = lambda _: None,
    workers: int | None = None,
) -> Overlap:
    """Search the training shards for the items, each one string of all its text.

    Covers what is finished where the folder is still being prepared; held-out documents are
    not searched. `workers` are processes, by default one a core where there is work for them.
    Raises ValueError or OSError for a damaged shard.
    """
    ngrams = NGrams(items)
    shards = list_shards(corpus)
    total = sum(info.tokens for info in shards.values())
    checked = len(ngrams.items)
    if not checked or not total:
        return Overlap(checked, (), ())
    workers = workers or min(available_cores(), -(-total // WORTH))
    workers = min(workers, len(shards))
    scanner = Scanner(corpus, ngrams)
    answers = scanner.scan_all(shards) if workers == 1 else _share(scanner, list(shards), workers)
    found: dict[Shard, list[Hit]] = {shard: [] for shard in shards}
    kinds: set[int] = set()
    done, began = 0, time.monotonic()
    with closing(answers):  # Ctrl-C in `show` ends the workers too
        for shard, tokens, hits in answers:
            found[shard] += hits
            kinds.update(hit.kind for hit in hits)
            done += tokens
            show(search_progress(done, total, began, f"{len(kinds):,} runs of 13 words found"))
    items_by_kind = ngrams.items_with(kinds)
    examples: dict[int, Shared] = {}
    for shard, info in shards.items():
        source = corpus.names[shard.source]
        for hit in found[shard]:
            for item in items_by_kind[hit.kind] - examples.keys():
                examples[item] = Shared(item, hit.words, source, info.name, hit.document)
    numbers = sorted(examples)
    return Overlap(checked, tuple(numbers), tuple(examples[item] for item in numbers[:EXAMPLES]))


def list_shards(corpus: Corpus) -> dict[Shard, ShardInfo]:
    return {
        Shard(source, number): info
        for source in range(len(corpus.names))
        for number, info in enumerate(corpus.shards(source))
    }


def search_progress(done: int, total: int, began: float, found: str) -> str:
    """Return a line of progress for tokens that are searched since `began`."""
    left = (total - done) * (time.monotonic() - began) / done
    share = f"{done / total:.0%} of {total / 1e6:,.0f} M training tokens searched"
    return f"{share} · {found} · {clock(left)} left"


class Scanner:
    """Decodes shards and searches their documents; may be sent to another process."""

    def __init__(self, corpus: Corpus, ngrams: NGrams) -> None:
        self.folder, self.check, self.ngrams = corpus.folder, corpus.check, ngrams
        tokenizer = corpus.tokenizer
        pieces = [tokenizer.decode_bytes([id]) for id in range(tokenizer.vocab_size)]
        # numpy takes from an array of objects in half the time of a list
        self.pieces = np.array(pieces, object)

    def scan_all(self, shards: Iterable[Shard]) -> Generator[Answer]:
        """Yield, for a few documents at a time, how many tokens they have and what they share."""
        for shard in shards:
            seen: set[int] = set()
            for tokens, hits in self._scan(shard):
                new = [hit for hit in hits if hit.kind not in seen]
                seen.update(hit.kind for hit in new)
                yield shard, tokens, new

    def _scan(self, shard: Shard) -> Iterator[tuple[int, list[Hit]]]:
        # opened for this shard alone: a mapped file counts as memory of whoever mapped it
        corpus = Corpus(self.folder, self.check)
        ids = corpus.tokens(*shard)
        edges = [*corpus.starts(*shard).tolist(), len(ids)]
        first = 0
        while first < len(edges) - 1:
            last = max(first + 1, bisect_right(edges, edges[first] + TOGETHER) - 1)
            texts = [self._text(ids[a:b]) for a, b in pairwise(edges[first : last + 1])]
            found = self.ngrams.find(texts)
            hits = [Hit(one.kind, one.words, first + one.text) for one in found]
            yield edges[last] - edges[first], hits
            first = last

    def _text(self, ids: NDArray[Any]) -> str:
        return b"".join(self.pieces[ids].tolist()).decode("utf-8", errors="replace")


def _share(scanner: Scanner, shards: list[Shard], workers: int) -> Generator[Answer]:
    """Yield what `scanner.scan_all(shards)` does, from several processes and in no order."""
    processes: list[subprocess.Popen[bytes]] = []
    pipes: list[Connection] = []
    waiting = iter(shards)
    try:
        for _ in range(workers):
            here, there = Pipe()
            pipes.append(here)
            with there:
                command = [*PROGRAM, str(there.fileno())]
                # a group of its own: Ctrl-C is for us, and we end it
                processes.append(
                    subprocess.Popen(command, pass_fds=[there.fileno()], process_group=0)
                )
        packed = pickle.dumps(scanner)
        for pipe in pipes:
            pipe.send_bytes(packed)
            pipe.send(next(waiting))
        busy = set(pipes)
        while busy:
            for ready in wait(list(busy)):
                pipe = cast(Connection, ready)
                answer = pipe.recv()
                if isinstance(answer, Exception):
                    raise answer
                if answer is not None:
                    yield answer
                elif shard := next(waiting, None):
                    pipe.send(shard)
                else:
                    busy.remove(pipe)
    except CLOSED:
        raise OSError(
            "A process that searched the training shards was ended from outside, perhaps for "
            "want of memory: ask again with fewer workers."
        ) from None
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for pipe in pipes:
            pipe.close()


def _serve(pipe: Connection) -> None:
    """Run a worker: receive a scanner, then one shard after the other; None ends its answers."""
    scanner: Scanner = pipe.recv()
    while True:
        shard: Shard = pipe.recv()
        try:
            for answer in scanner.scan_all([shard]):
                pipe.send(answer)
            pipe.send(None)
        except CLOSED:
            raise
        except Exception as error:
            pipe.send(error)


if __name__ == "__main__":
    with suppress(*CLOSED):  # the parent has ended
        _serve(Connection(int(sys.argv[1])))
