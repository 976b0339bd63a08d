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

from gnano.data.ngram_overlap import NGramIndex
from gnano.data.shards import ShardInfo
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.utils.platform_support import available_cores
from gnano.utils.progress import format_clock

BATCH_TOKENS = 2**18  # tokens whose documents are searched together
TOKENS_PER_WORKER = 2**24  # tokens that are searched in the time that a process takes to start
MAX_EXAMPLES = 20  # items shown with what they share
WORKER_COMMAND = [sys.executable, "-m", "gnano.evals.contamination"]
# of a pipe whose other end is gone
PIPE_CLOSED_ERRORS = (EOFError, BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True)
class CommonSpan:
    """An example of what an item has in common with a training document."""

    item: int
    words: str  # the first 13 that were found, in lower case
    source: str
    shard: str  # file name without its ending
    document: int  # number in the shard


@dataclass(frozen=True)
class ContaminationReport:
    num_checked: int  # items that have a run of 13 words at all
    contaminated_items: tuple[int, ...]  # numbers of those that share one with a training document
    examples: tuple[CommonSpan, ...]  # of the first items found


class ShardRef(NamedTuple):
    """A shard, by the number of its source and its own."""

    source: int
    number: int


class Match(NamedTuple):
    """Where a run of 13 words is first in a shard."""

    ngram_id: int
    words: str
    document: int


ScanResult = tuple[ShardRef, int, list[Match]]  # tokens that were searched, and what is new in them


def find_contamination(
    corpus: TokenizedCorpus,
    items: Sequence[str],
    on_progress: Callable[[str], None] = lambda _: None,
    num_workers: int | None = None,
) -> ContaminationReport:
    """Search the training shards for the items, each one string of all its text.

    Covers what is finished where the folder is still being prepared; held-out documents are
    not searched. `workers` are processes, by default one a core where there is work for them.
    Raises ValueError or OSError for a damaged shard.
    """
    ngrams = NGramIndex(items)
    shards = list_shards(corpus)
    total = sum(info.tokens for info in shards.values())
    checked = len(ngrams.items_with_ngrams)
    if not checked or not total:
        return ContaminationReport(checked, (), ())
    num_workers = num_workers or min(available_cores(), -(-total // TOKENS_PER_WORKER))
    num_workers = min(num_workers, len(shards))
    scanner = ShardScanner(corpus, ngrams)
    answers = (
        scanner.scan(shards)
        if num_workers == 1
        else _scan_in_workers(scanner, list(shards), num_workers)
    )
    found: dict[ShardRef, list[Match]] = {shard: [] for shard in shards}
    kinds: set[int] = set()
    done, began = 0, time.monotonic()
    with closing(answers):  # Ctrl-C in `show` ends the workers too
        for shard, tokens, hits in answers:
            found[shard] += hits
            kinds.update(hit.ngram_id for hit in hits)
            done += tokens
            on_progress(
                format_search_progress(done, total, began, f"{len(kinds):,} runs of 13 words found")
            )
    items_by_kind = ngrams.items_by_ngram(kinds)
    examples: dict[int, CommonSpan] = {}
    for shard, info in shards.items():
        source = corpus.source_names[shard.source]
        for hit in found[shard]:
            for item in items_by_kind[hit.ngram_id] - examples.keys():
                examples[item] = CommonSpan(item, hit.words, source, info.name, hit.document)
    numbers = sorted(examples)
    return ContaminationReport(
        checked, tuple(numbers), tuple(examples[item] for item in numbers[:MAX_EXAMPLES])
    )


def list_shards(corpus: TokenizedCorpus) -> dict[ShardRef, ShardInfo]:
    return {
        ShardRef(source, number): info
        for source in range(len(corpus.source_names))
        for number, info in enumerate(corpus.shard_infos(source))
    }


def format_search_progress(done: int, total: int, started_at: float, found: str) -> str:
    """Return a line of progress for tokens that are searched since `began`."""
    left = (total - done) * (time.monotonic() - started_at) / done
    share = f"{done / total:.0%} of {total / 1e6:,.0f} M training tokens searched"
    return f"{share} · {found} · {format_clock(left)} left"


class ShardScanner:
    """Decodes shards and searches their documents; may be sent to another process."""

    def __init__(self, corpus: TokenizedCorpus, ngrams: NGramIndex) -> None:
        self.folder, self.check, self.ngrams = corpus.folder, corpus.verify_checksums, ngrams
        tokenizer = corpus.tokenizer
        pieces = [tokenizer.decode_bytes([id]) for id in range(tokenizer.vocab_size)]
        # numpy takes from an array of objects in half the time of a list
        self.token_bytes = np.array(pieces, object)

    def scan(self, shards: Iterable[ShardRef]) -> Generator[ScanResult]:
        """Yield, for a few documents at a time, how many tokens they have and what they share."""
        for shard in shards:
            seen: set[int] = set()
            for tokens, hits in self._scan_shard(shard):
                new = [hit for hit in hits if hit.ngram_id not in seen]
                seen.update(hit.ngram_id for hit in new)
                yield shard, tokens, new

    def _scan_shard(self, shard: ShardRef) -> Iterator[tuple[int, list[Match]]]:
        # opened for this shard alone: a mapped file counts as memory of whoever mapped it
        corpus = TokenizedCorpus(self.folder, self.check)
        ids = corpus.shard_tokens(*shard)
        edges = [*corpus.document_offsets(*shard).tolist(), len(ids)]
        first = 0
        while first < len(edges) - 1:
            last = max(first + 1, bisect_right(edges, edges[first] + BATCH_TOKENS) - 1)
            texts = [self._decode(ids[a:b]) for a, b in pairwise(edges[first : last + 1])]
            found = self.ngrams.find(texts)
            hits = [Match(one.ngram_id, one.words, first + one.text_index) for one in found]
            yield edges[last] - edges[first], hits
            first = last

    def _decode(self, ids: NDArray[Any]) -> str:
        return b"".join(self.token_bytes[ids].tolist()).decode("utf-8", errors="replace")


def _scan_in_workers(
    scanner: ShardScanner, shards: list[ShardRef], num_workers: int
) -> Generator[ScanResult]:
    """Yield what `scanner.scan_all(shards)` does, from several processes and in no order."""
    processes: list[subprocess.Popen[bytes]] = []
    pipes: list[Connection] = []
    waiting = iter(shards)
    try:
        for _ in range(num_workers):
            here, there = Pipe()
            pipes.append(here)
            with there:
                command = [*WORKER_COMMAND, str(there.fileno())]
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
    except PIPE_CLOSED_ERRORS:
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


def _run_worker(pipe: Connection) -> None:
    """Run a worker: receive a scanner, then one shard after the other; None ends its answers."""
    scanner: ShardScanner = pipe.recv()
    while True:
        shard: ShardRef = pipe.recv()
        try:
            for answer in scanner.scan([shard]):
                pipe.send(answer)
            pipe.send(None)
        except PIPE_CLOSED_ERRORS:
            raise
        except Exception as error:
            pipe.send(error)


if __name__ == "__main__":
    with suppress(*PIPE_CLOSED_ERRORS):  # the parent has ended
        _run_worker(Connection(int(sys.argv[1])))
