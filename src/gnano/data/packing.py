"""Packing of documents (best fit) and of fine-tuning examples (first fit) into rows.

Best fit: only documents longer than a row are split. A row holds T + 1 tokens: T inputs and their
targets, one position further. A document is its end-of-text, its ids, and the end-of-text that
starts the next document; without the latter the model would never learn where texts end. A document
longer than a row becomes full rows and a rest, which overlap by one token, so that every token of a
shard but the first is predicted exactly once.

    document   0 1 2 3 4 5 6 7 8        T = 4
    piece      0 1 2 3 4
    piece              4 5 6 7 8

All pieces are then placed, longest first, each in the row with the least free space that still fits
it, or in a new row: best-fit decreasing, as in Ding et al. 2024, "Fewer Truncations Improve
Language Modeling" (https://arxiv.org/abs/2404.10830). Pieces of the same length are
interchangeable, and so are rows with the same free space, so all of them are planned together from
the counts of the lengths, in a few steps per length:

    lengths ──counts──▶ plan_best_fit: steps ─┬─▶ PackingCounts
                                              └─▶ BestFitPacking: the pieces of each row

Attention stays inside a piece (`segments`); nothing is predicted across a boundary.

First fit, the longest example first (Johnson 1973); attention stays inside an example, so what
shares a row only changes the time it takes:

    sizes 6 4 3 2 2, capacity 8      row 0: 6 2      row 1: 4 3      row 2: 2
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
    """One step of the plan: pieces of one length are placed in rows with the same free space."""

    piece_tokens: int  # tokens of each piece
    piece_count: int
    free_tokens: int  # free tokens of each row before; T + 1: new rows
    row_count: int  # each takes as many pieces as fit, the last one possibly fewer

    @property
    def pieces_per_row(self) -> int:
        """Pieces in every row but the last."""
        return self.free_tokens // self.piece_tokens

    @property
    def free_tokens_after(self) -> tuple[int, int]:
        """Free tokens after the step in every row but the last, and in the last."""
        last = self.piece_count - (self.row_count - 1) * self.pieces_per_row
        return (
            self.free_tokens - self.pieces_per_row * self.piece_tokens,
            self.free_tokens - last * self.piece_tokens,
        )


class PackingCounts(NamedTuple):
    """The cost of packing: rows · T = targets + boundary_slots + padding."""

    rows: int
    targets: int  # positions that predict a token
    boundary_slots: int  # positions that predict nothing, as another piece follows
    padding: int  # empty positions
    split_documents: int  # documents in several pieces: exactly those longer than a row
    dropped_documents: int  # documents in no row: a lone end-of-text has nothing to predict


class BestFitPacking:
    """The rows of one shard: a pure function of its documents' starts and T."""

    def __init__(self, starts: NDArray[Any], tokens: int, block_size: int) -> None:
        """Pack a shard of `tokens` tokens, with end-of-text at `starts`, for T = `block_size`."""
        piece_starts, piece_stops = _split_documents(starts, tokens, block_size)
        sizes = piece_stops - piece_starts
        self.row_count = 0
        open_rows: defaultdict[int, list[int]] = defaultdict(list)  # by their free tokens
        assigned = [np.empty(0, np.int64)]  # the row of each piece, longest piece first
        for step in plan_best_fit(np.bincount(sizes, minlength=block_size + 2).tolist()):
            if step.free_tokens == block_size + 1:
                rows = list(range(self.row_count, self.row_count + step.row_count))
                self.row_count += step.row_count
            else:
                rows = open_rows[step.free_tokens][-step.row_count :]
                del open_rows[step.free_tokens][-step.row_count :]
            repeated = np.repeat(np.array(rows, np.int64), step.pieces_per_row)
            assigned.append(repeated[: step.piece_count])
            usual, last = step.free_tokens_after
            open_rows[usual] += rows[:-1]
            open_rows[last].append(rows[-1])
        row = np.empty_like(sizes)
        row[np.argsort(-sizes, kind="stable")] = np.concatenate(assigned)
        # a stable sort keeps the pieces of a row in the shard's order
        order = np.argsort(row, kind="stable")
        self._starts, self._stops = piece_starts[order], piece_stops[order]
        self._row_ends = np.cumsum(np.bincount(row, minlength=self.row_count))

    def row_spans(self, row: int) -> list[TokenSpan]:
        """Return the pieces of a row, in the shard's order."""
        if not 0 <= row < self.row_count:
            raise IndexError(f"row {row} of {self.row_count}")
        part = slice(self._row_ends[row - 1] if row else 0, self._row_ends[row])
        return list(zip(self._starts[part].tolist(), self._stops[part].tolist(), strict=True))


def count_packing(starts: NDArray[Any], tokens: int, block_size: int) -> PackingCounts:
    """Count the positions of a shard's rows by use, without placing the pieces."""
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
    """Write the pieces one after another into the arrays [T] of one row, and pad the rest.

    The target is `ignore_index` where no token of the same piece follows. Segments number the
    pieces from 0; the padding is end-of-text, in one further segment.
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
    """Yield the plan for `counts[n]` pieces of n tokens, where the last n is a row's capacity.

    The rows equal those of placing one piece after another, up to the names of equal rows: the row
    with the least free space that fits a piece still has the least after it, as long as it fits
    another one, so it is filled before the next row is used.
    """
    capacity = len(counts) - 1
    open_rows: dict[int, int] = {}  # how many open rows have this many free tokens
    free_sizes = [capacity]  # sorted keys of `open_rows`, and a new row's
    for size in range(capacity, 0, -1):
        left = counts[size]
        while left:
            at = bisect_left(free_sizes, size)
            free = free_sizes[at]
            per_row = free // size
            used = -(-left // per_row)
            if free != capacity:
                used = min(used, open_rows[free])
                open_rows[free] -= used
                if not open_rows[free]:
                    del open_rows[free], free_sizes[at]
            step = PlacementStep(size, min(left, used * per_row), free, used)
            yield step
            left -= step.piece_count
            for after, count in zip(step.free_tokens_after, (used - 1, 1), strict=True):
                if not count:
                    continue
                if after not in open_rows:
                    insort(free_sizes, after)
                open_rows[after] = open_rows.get(after, 0) + count


def _document_sizes(starts: NDArray[Any], tokens: int) -> Int64Array:
    """Return the tokens of each document, including the end-of-text after it."""
    begin = starts.astype(np.int64)
    sizes: Int64Array = np.append(begin, tokens)[1:] - begin
    sizes[:-1] += 1  # none follows the last document
    return sizes


def _full_rows(sizes: Int64Array, block_size: int) -> Int64Array:
    """Return the number of full rows before the last piece of each document."""
    return np.maximum(-(-(sizes - 1) // block_size) - 1, 0)


def _split_documents(
    starts: NDArray[Any], tokens: int, block_size: int
) -> tuple[Int64Array, Int64Array]:
    """Return where each piece starts and stops, in the shard's order; none is a single token."""
    sizes = _document_sizes(starts, tokens)
    first, sizes = starts.astype(np.int64)[sizes > 1], sizes[sizes > 1]
    count = _full_rows(sizes, block_size) + 1
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    begin = np.repeat(first, count) + number * block_size
    return begin, np.minimum(begin + block_size + 1, np.repeat(first + sizes, count))


def first_fit_decreasing(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Return rows of indices: each example, longest first, is in the first row that fits it."""
    width = 1
    while width < len(sizes):
        width *= 2
    # a tree of the most free space below each node finds the row in log₂ steps: node n has the
    # children 2n and 2n + 1, and the rows are its last half
    free = [capacity] * (2 * width)
    rows: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[index]
        if not 0 < size <= capacity:
            raise ValueError(f"an example of {size} does not fit a row of {capacity}")
        node = 1
        while node < width:
            node = 2 * node if free[2 * node] >= size else 2 * node + 1
        row = node - width
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        free[node] -= size
        while node > 1:
            node //= 2
            free[node] = max(free[2 * node], free[2 * node + 1])
    return rows
