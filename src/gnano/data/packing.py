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

Packing of whole examples into rows: first fit, the longest first (Johnson 1973).

    sizes 6 4 3 2 2, room 8      row 0: 6 2      row 1: 4 3      row 2: 2

Attention stays inside an example, so what shares a row changes nothing but the time it takes.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64Array = np.ndarray[tuple[int], np.dtype[np.int64]]
TokenSpan = tuple[int, int]  # (start, stop) in the shard's tokens


class PlacementStep(NamedTuple):
    """One step of the plan: that many pieces of one length, into rows with the same room."""

    piece_tokens: int  # tokens of each piece
    piece_count: int
    free_tokens: int  # tokens that each of the rows had left; T + 1: rows opened now
    row_count: int  # each takes as many pieces as fit, the last one perhaps fewer

    @property
    def pieces_per_row(self) -> int:
        """Pieces in every row but the last."""
        return self.free_tokens // self.piece_tokens

    @property
    def free_tokens_after(self) -> tuple[int, int]:
        """What is left in every row but the last, and in the last."""
        last = self.piece_count - (self.row_count - 1) * self.pieces_per_row
        return (
            self.free_tokens - self.pieces_per_row * self.piece_tokens,
            self.free_tokens - last * self.piece_tokens,
        )


class PackingCounts(NamedTuple):
    """What packing costs: rows · T = targets + borders + padding. Shards may be added up."""

    rows: int
    targets: int  # positions that predict a token
    boundary_slots: int  # positions that predict nothing, as another piece follows
    padding: int  # tokens of room left empty
    split_documents: int  # documents in more than one piece: those longer than a row, and no others
    dropped_documents: (
        int  # documents that are in no row: a lone end-of-text has nothing to predict
    )


class BestFitPacking:
    """The rows of one shard: a pure function of its documents' starts and of T."""

    def __init__(self, starts: NDArray[Any], tokens: int, block_size: int) -> None:
        """`starts`: position of each document's end-of-text; `length`: T."""
        begin, stop = _split_documents(starts, tokens, block_size)
        sizes = stop - begin
        placed, self.row_count = _assign_rows(np.bincount(sizes, minlength=block_size + 2).tolist())
        row = np.empty_like(sizes)
        row[np.argsort(-sizes, kind="stable")] = placed
        # pieces came in the shard's order, and so they stand in a row
        order = np.argsort(row, kind="stable")
        self._starts, self._stops = begin[order], stop[order]
        self._row_ends = np.cumsum(np.bincount(row, minlength=self.row_count))

    def row_spans(self, row: int) -> list[TokenSpan]:
        """The pieces of row n, in the order in which the shard has them."""
        if not 0 <= row < self.row_count:
            raise IndexError(f"row {row} of {self.row_count}")
        part = slice(self._row_ends[row - 1] if row else 0, self._row_ends[row])
        return list(zip(self._starts[part].tolist(), self._stops[part].tolist(), strict=True))


def count_packing(starts: NDArray[Any], tokens: int, block_size: int) -> PackingCounts:
    """What becomes of the places in a shard's rows, without placing a piece."""
    sizes = _document_sizes(starts, tokens)
    full = _full_rows(sizes, block_size)
    counts = np.bincount(sizes - full * block_size, minlength=block_size + 2)
    counts[block_size + 1] += full.sum()
    counts[1] = 0
    pieces = int(counts.sum())
    filled = int(counts @ np.arange(block_size + 2))
    rows = sum(
        step.row_count
        for step in plan_best_fit(counts.tolist())
        if step.free_tokens == block_size + 1
    )
    return PackingCounts(
        rows=rows,
        targets=filled - pieces,
        boundary_slots=pieces - rows,
        padding=rows * (block_size + 1) - filled,
        split_documents=int(np.count_nonzero(sizes > block_size + 1)),
        dropped_documents=int(np.count_nonzero(sizes < 2)),
    )


def fill_row(
    tokens: NDArray[Any],
    pieces: Sequence[TokenSpan],
    inputs: NDArray[Any],
    targets: NDArray[Any],
    segments: NDArray[Any],
    *,
    end_of_text: int,
    ignore_index: int,
) -> None:
    """Lay the pieces one after another into the arrays [T] of one row, and pad the rest.

    The target is `ignore` where no token of the same piece follows. Segments number the
    pieces from 0; the padding is end-of-text, in a segment of its own, the last.
    """
    length = len(inputs)
    inputs[:], targets[:], segments[:] = end_of_text, ignore_index, len(pieces)
    at = 0
    for number, (start, stop) in enumerate(pieces):
        end = at + stop - start
        assert end <= length + 1, "the pieces are longer than the row"
        # the last token of a full row is a target only
        inputs[at:end] = tokens[start:stop][: length - at]
        targets[at : end - 1] = tokens[start + 1 : stop]
        segments[at:end] = number
        at = end


def plan_best_fit(counts: Sequence[int]) -> Iterator[PlacementStep]:
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
            step = PlacementStep(size, min(left, taken * each), room, taken)
            yield step
            left -= step.piece_count
            for after, count in zip(step.free_tokens_after, (taken - 1, 1), strict=True):
                if not count:
                    continue
                if after not in rows:
                    insort(rooms, after)
                rows[after] = rows.get(after, 0) + count


def _assign_rows(counts: Sequence[int]) -> tuple[Int64Array, int]:
    """The row of each piece, the longest piece first; and how many rows there are."""
    opened = 0
    open_rows: defaultdict[int, list[int]] = defaultdict(list)  # by the room left in them
    placed = [np.empty(0, np.int64)]
    for step in plan_best_fit(counts):
        if step.free_tokens == len(counts) - 1:
            rows = list(range(opened, opened + step.row_count))
            opened += step.row_count
        else:
            rows = open_rows[step.free_tokens][-step.row_count :]
            del open_rows[step.free_tokens][-step.row_count :]
        placed.append(np.repeat(np.array(rows, np.int64), step.pieces_per_row)[: step.piece_count])
        usual, last = step.free_tokens_after
        open_rows[usual] += rows[:-1]
        open_rows[last].append(rows[-1])
    return np.concatenate(placed), opened


def _document_sizes(starts: NDArray[Any], tokens: int) -> Int64Array:
    """Tokens of each document, the end-of-text after it among them."""
    begin = starts.astype(np.int64)
    sizes: Int64Array = np.append(begin, tokens)[1:] - begin
    sizes[:-1] += 1  # after the shard's last document there is none
    return sizes


def _full_rows(sizes: Int64Array, block_size: int) -> Int64Array:
    """How many full rows come before the last piece of each document."""
    return np.maximum(-(-(sizes - 1) // block_size) - 1, 0)


def _split_documents(
    starts: NDArray[Any], tokens: int, block_size: int
) -> tuple[Int64Array, Int64Array]:
    """Where each piece starts and stops, in the shard's order; none of a single token."""
    sizes = _document_sizes(starts, tokens)
    first, sizes = starts.astype(np.int64)[sizes > 1], sizes[sizes > 1]
    count = _full_rows(sizes, block_size) + 1
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    begin = np.repeat(first, count) + number * block_size
    return begin, np.minimum(begin + block_size + 1, np.repeat(first + sizes, count))


def first_fit_decreasing(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Return rows of indices: each example, longest first, is in the first row that takes it.

    A tree over the rows, each node the most room below it, finds that row in log₂ steps.
    """
    width = 1
    while width < len(sizes):
        width *= 2
    most = [capacity] * (2 * width)  # node n has the children 2n and 2n + 1; rows are the last half
    rows: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[index]
        if not 0 < size <= capacity:
            raise ValueError(f"an example of {size} does not fit a row of {capacity}")
        node = 1
        while node < width:
            node = 2 * node if most[2 * node] >= size else 2 * node + 1
        row = node - width
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        most[node] -= size
        while node > 1:
            node //= 2
            most[node] = max(most[2 * node], most[2 * node + 1])
    return rows
