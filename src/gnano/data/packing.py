"""Best-fit packing of documents into rows: only what is longer than a row is cut.

A row has room for T + 1 tokens: T inputs, and their targets one further. A document is its
end-of-text, its ids, and the end-of-text that begins the next one, or the model would never
learn where texts end. One that is longer than a row becomes full rows and a rest, which
overlap by one token. So every token of a shard but the first is predicted exactly once.

    document   0 1 2 3 4 5 6 7 8        T = 4
    piece      0 1 2 3 4
    piece              4 5 6 7 8

All pieces are then placed, long ones first, each in the row with the least room that still
takes it, or in a new one: best-fit decreasing, as in Ding et al. 2024, "Fewer Truncations
Improve Language Modeling" (https://arxiv.org/abs/2404.10830). Pieces of one length are alike,
and so are rows with the same room left; so the plan is made for all of them at once, from the
counts of the lengths alone, in a few steps for each length:

    lengths ──counts──▶ best_fit: steps ─┬─▶ waste
                                         └─▶ Packing: which piece stands in which row

Attention stays inside a piece (`segments`); nothing is predicted across a border.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Piece = tuple[int, int]  # (start, stop) in the shard's tokens


class Step(NamedTuple):
    """One step of the plan: that many pieces of one length, into rows with the same room."""

    size: int  # tokens of each piece
    pieces: int
    room: int  # tokens that each of the rows had left; T + 1: rows opened now
    rows: int  # each takes as many pieces as fit, the last one perhaps fewer

    @property
    def each(self) -> int:
        """Pieces in every row but the last."""
        return self.room // self.size

    @property
    def room_after(self) -> tuple[int, int]:
        """What is left in every row but the last, and in the last."""
        last = self.pieces - (self.rows - 1) * self.each
        return self.room - self.each * self.size, self.room - last * self.size


class Waste(NamedTuple):
    """What packing costs: rows · T = targets + borders + padding. Shards may be added up."""

    rows: int
    targets: int  # positions that predict a token
    borders: int  # positions that predict nothing, as another piece follows
    padding: int  # tokens of room left empty
    cut: int  # documents in more than one piece: those longer than a row, and no others
    dropped: int  # documents that are in no row: a lone end-of-text has nothing to predict


class Packing:
    """The rows of one shard: a pure function of its documents' starts and of T."""

    def __init__(self, starts: NDArray[Any], tokens: int, length: int) -> None:
        """`starts`: position of each document's end-of-text; `length`: T."""
        begin, stop = _pieces(starts, tokens, length)
        sizes = stop - begin
        placed, self.rows = _place(np.bincount(sizes, minlength=length + 2).tolist())
        row = np.empty_like(sizes)
        row[np.argsort(-sizes, kind="stable")] = placed
        # pieces came in the shard's order, and so they stand in a row
        order = np.argsort(row, kind="stable")
        self._begin, self._stop = begin[order], stop[order]
        self._ends = np.cumsum(np.bincount(row, minlength=self.rows))

    def row(self, n: int) -> list[Piece]:
        """The pieces of row n, in the order in which the shard has them."""
        if not 0 <= n < self.rows:
            raise IndexError(f"row {n} of {self.rows}")
        part = slice(self._ends[n - 1] if n else 0, self._ends[n])
        return list(zip(self._begin[part].tolist(), self._stop[part].tolist(), strict=True))


def waste(starts: NDArray[Any], tokens: int, length: int) -> Waste:
    """What becomes of the places in a shard's rows, without placing a piece."""
    sizes = _sizes(starts, tokens)
    full = _full(sizes, length)
    counts = np.bincount(sizes - full * length, minlength=length + 2)
    counts[length + 1] += full.sum()
    counts[1] = 0
    pieces = int(counts.sum())
    filled = int(counts @ np.arange(length + 2))
    rows = sum(step.rows for step in best_fit(counts.tolist()) if step.room == length + 1)
    return Waste(
        rows=rows,
        targets=filled - pieces,
        borders=pieces - rows,
        padding=rows * (length + 1) - filled,
        cut=int(np.count_nonzero(sizes > length + 1)),
        dropped=int(np.count_nonzero(sizes < 2)),
    )


def fill_row(
    tokens: NDArray[Any],
    pieces: Sequence[Piece],
    inputs: NDArray[Any],
    targets: NDArray[Any],
    segments: NDArray[Any],
    *,
    end_of_text: int,
    ignore: int,
) -> None:
    """Lay the pieces one after another into the arrays [T] of one row, and pad the rest.

    The target is `ignore` where no token of the same piece follows. Segments number the
    pieces from 0; the padding is end-of-text, in a segment of its own, the last.
    """
    length = len(inputs)
    inputs[:], targets[:], segments[:] = end_of_text, ignore, len(pieces)
    at = 0
    for number, (start, stop) in enumerate(pieces):
        end = at + stop - start
        assert end <= length + 1, "the pieces are longer than the row"
        # the last token of a full row is a target only
        inputs[at:end] = tokens[start:stop][: length - at]
        targets[at : end - 1] = tokens[start + 1 : stop]
        segments[at:end] = number
        at = end


def best_fit(counts: Sequence[int]) -> Iterator[Step]:
    """The plan for `counts[n]` pieces of n tokens, where the last n is the room of a row.

    The same rows, up to the names of equals, as from placing one piece after another: the
    row with the least room that takes a piece still has the least after it, as long as it
    takes one more, so it is filled before the next is touched.
    """
    new = len(counts) - 1  # room of a row not opened yet, of which there is no end
    rows: dict[int, int] = {}  # how many open rows have so much room left
    rooms = [new]  # in order: those of `rows`, and a new row's
    for size in range(new, 0, -1):
        left = counts[size]
        while left:
            at = bisect_left(rooms, size)
            room = rooms[at]
            each = room // size
            taken = -(-left // each)
            if room != new:
                taken = min(taken, rows[room])
                rows[room] -= taken
                if not rows[room]:
                    del rows[room], rooms[at]
            step = Step(size, min(left, taken * each), room, taken)
            yield step
            left -= step.pieces
            for after, count in zip(step.room_after, (taken - 1, 1), strict=True):
                if not count:
                    continue
                if after not in rows:
                    insort(rooms, after)
                rows[after] = rows.get(after, 0) + count


def _place(counts: Sequence[int]) -> tuple[Ints, int]:
    """The row of each piece, the longest piece first; and how many rows there are."""
    opened = 0
    open_rows: defaultdict[int, list[int]] = defaultdict(list)  # by the room left in them
    placed = [np.empty(0, np.int64)]
    for step in best_fit(counts):
        if step.room == len(counts) - 1:
            rows = list(range(opened, opened + step.rows))
            opened += step.rows
        else:
            rows = open_rows[step.room][-step.rows :]
            del open_rows[step.room][-step.rows :]
        placed.append(np.repeat(np.array(rows, np.int64), step.each)[: step.pieces])
        usual, last = step.room_after
        open_rows[usual] += rows[:-1]
        open_rows[last].append(rows[-1])
    return np.concatenate(placed), opened


def _sizes(starts: NDArray[Any], tokens: int) -> Ints:
    """Tokens of each document, the end-of-text after it among them."""
    begin = starts.astype(np.int64)
    sizes: Ints = np.append(begin, tokens)[1:] - begin
    sizes[:-1] += 1  # after the shard's last document there is none
    return sizes


def _full(sizes: Ints, length: int) -> Ints:
    """How many full rows come before the last piece of each document."""
    return np.maximum(-(-(sizes - 1) // length) - 1, 0)


def _pieces(starts: NDArray[Any], tokens: int, length: int) -> tuple[Ints, Ints]:
    """Where each piece starts and stops, in the shard's order; none of a single token."""
    sizes = _sizes(starts, tokens)
    first, sizes = starts.astype(np.int64)[sizes > 1], sizes[sizes > 1]
    count = _full(sizes, length) + 1
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    begin = np.repeat(first, count) + number * length
    return begin, np.minimum(begin + length + 1, np.repeat(first + sizes, count))
