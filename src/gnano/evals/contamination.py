"""Contamination: the evaluation items that share a run of 13 words with a training document.

Preparation can drop such documents (`data/ngram_overlap.py`). This module does the opposite: it
finds the affected items, so that a score can be given for all items and for the clean ones. It
searches the token shards, which are what training read:

    shard ─▶ documents in batches ─▶ bytes ─▶ text ─▶ NGramIndex ─▶ runs of 13 words ─▶ items

Each worker process searches its share of the shards, a few documents at a time. A worker is a new
interpreter with a pipe, independent of what the calling program has loaded, and ends when its pipe
is closed. The result does not depend on the number of workers.
"""

import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from gnano.data.ngram_overlap import NGramIndex, NGramMatch
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.shards import ShardInfo
from gnano.utils.formatting import format_clock
from gnano.utils.platform_support import available_cores

BATCH_TOKENS = 2**18  # tokens of the documents searched together
TOKENS_PER_WORKER = 2**24  # tokens searched in the time that a process takes to start
WORKER_COMMAND = [sys.executable, "-m", "gnano.evals.contamination"]
PIPE_CLOSED_ERRORS = (EOFError, BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True)
class CommonSpan:
    """An example of what an item shares with a training document."""

    item: int
    words: str  # the first 13 shared words, in lower case
    source: str
    shard: str  # file name without its suffix
    document: int  # number in the shard


class ShardRef(NamedTuple):
    """A shard, by the number of its source and its number in the source."""

    source: int
    number: int


# shard, tokens searched, and the runs not found in the shard before, with the document's number
ScanResult = tuple[ShardRef, int, list[NGramMatch]]


def find_contamination(
    corpus: TokenizedCorpus,
    items: Sequence[str],
    on_progress: Callable[[str], None] = lambda _: None,
    num_workers: int | None = None,
) -> tuple[set[int], dict[int, CommonSpan]]:
    """Search the training shards for the items, each given as one string of all its text.

    Returns the items of at least 13 words, and what each contaminated one of them shares, in order.
    Finished shards are searched if the folder is still being prepared; held-out documents are not.
    By default there is one worker per core, as far as there is enough work for them. Raises
    ValueError or OSError for a damaged shard.
    """
    ngrams = NGramIndex(items)
    shards = list_shards(corpus)
    total = sum(info.tokens for info in shards.values())
    if not ngrams.items_with_ngrams or not total:
        return ngrams.items_with_ngrams, {}
    num_workers = num_workers or min(available_cores(), -(-total // TOKENS_PER_WORKER))
    num_workers = min(num_workers, len(shards))
    tokenizer = corpus.tokenizer
    pieces = [tokenizer.decode_bytes([id]) for id in range(tokenizer.vocab_size)]
    scanner = ShardScanner(corpus.folder, ngrams, np.array(pieces, object))
    if num_workers == 1:
        results = scanner.scan(shards)
    else:
        results = _scan_in_workers(scanner, list(shards), num_workers)
    matches: dict[ShardRef, list[NGramMatch]] = {shard: [] for shard in shards}
    ngram_ids: set[int] = set()
    done, started_at = 0, time.monotonic()
    with closing(results):  # Ctrl-C in `on_progress` ends the workers too
        for shard, tokens, new in results:
            matches[shard] += new
            ngram_ids.update(match.ngram_id for match in new)
            done += tokens
            found = f"{len(ngram_ids):,} runs of 13 words found"
            on_progress(format_search_progress(done, total, started_at, found))
    items_by_ngram = ngrams.items_by_ngram(ngram_ids)
    shared: dict[int, CommonSpan] = {}
    for shard, info in shards.items():
        source = corpus.source_names[shard.source]
        for ngram_id, document, words in matches[shard]:
            for item in items_by_ngram[ngram_id] - shared.keys():
                shared[item] = CommonSpan(item, words, source, info.name, document)
    return ngrams.items_with_ngrams, dict(sorted(shared.items()))


def list_shards(corpus: TokenizedCorpus) -> dict[ShardRef, ShardInfo]:
    """Return all training shards of a corpus."""
    return {
        ShardRef(source, number): info
        for source in range(len(corpus.source_names))
        for number, info in enumerate(corpus.shard_infos[source])
    }


def format_search_progress(done: int, total: int, started_at: float, found: str) -> str:
    """Return a progress line for a search of training tokens."""
    left = (total - done) * (time.monotonic() - started_at) / done
    share = f"{done / total:.0%} of {total / 1e6:,.0f} M training tokens searched"
    return f"{share} · {found} · {format_clock(left)} left"


@dataclass(frozen=True)
class ShardScanner:
    """Decodes shards and searches their documents; can be pickled for a worker process."""

    folder: Path
    ngrams: NGramIndex
    token_bytes: NDArray[Any]  # of objects: indexing it takes half the time of indexing a list

    def scan(self, shards: Iterable[ShardRef]) -> Generator[ScanResult]:
        """Yield the number of tokens and the new matches of each batch of documents."""
        for shard in shards:
            # opened for this shard only: a mapped file counts as memory of the process
            corpus = TokenizedCorpus(self.folder)
            ids = corpus.shard_tokens(*shard)
            edges = [*corpus.document_offsets(*shard).tolist(), len(ids)]
            seen: set[int] = set()
            first = 0
            while first < len(edges) - 1:
                last = max(first + 1, bisect_right(edges, edges[first] + BATCH_TOKENS) - 1)
                texts = [
                    b"".join(self.token_bytes[ids[a:b]].tolist()).decode("utf-8", errors="replace")
                    for a, b in pairwise(edges[first : last + 1])
                ]
                found = [one for one in self.ngrams.find(texts) if one.ngram_id not in seen]
                seen.update(one.ngram_id for one in found)
                matches = [one._replace(text_index=first + one.text_index) for one in found]
                yield shard, edges[last] - edges[first], matches
                first = last


def _scan_in_workers(
    scanner: ShardScanner, shards: list[ShardRef], num_workers: int
) -> Generator[ScanResult]:
    """Yield the results of `scanner.scan(shards)` from several processes, in any order."""
    with ExitStack() as stack:
        pipes: list[Connection] = []
        for _ in range(num_workers):
            own_end, worker_end = Pipe()
            pipes.append(stack.enter_context(own_end))
            with worker_end:
                command = [*WORKER_COMMAND, str(fd := worker_end.fileno())]
                # in a separate process group: Ctrl-C reaches only the parent, which ends it
                process = subprocess.Popen(command, pass_fds=[fd], process_group=0)
            stack.callback(process.wait)
            stack.callback(process.kill)
        try:
            for number, pipe in enumerate(pipes):
                pipe.send((scanner, shards[number::num_workers]))
            while pipes:
                for pipe in cast(list[Connection], wait(pipes)):
                    answer = pipe.recv()
                    if isinstance(answer, Exception):
                        raise answer
                    if answer is None:
                        pipes.remove(pipe)
                    else:
                        yield answer
        except PIPE_CLOSED_ERRORS:
            raise OSError(
                "A process that searched the training shards was killed, perhaps because memory "
                "ran out: try again with fewer workers."
            ) from None


def _run_worker(pipe: Connection) -> None:
    """Receive a scanner and shards; send the results, then None."""
    scanner, shards = pipe.recv()
    try:
        for result in scanner.scan(shards):
            pipe.send(result)
        pipe.send(None)
    except PIPE_CLOSED_ERRORS:
        raise
    except Exception as error:
        pipe.send(error)


if __name__ == "__main__":
    with suppress(*PIPE_CLOSED_ERRORS):  # the parent has ended
        _run_worker(Connection(int(sys.argv[1])))
