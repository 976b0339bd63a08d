"""Packing of whole examples into rows: first fit, the longest first (Johnson 1973).

    sizes 6 4 3 2 2, room 8      row 0: 6 2      row 1: 4 3      row 2: 2

Attention stays inside an example, so what shares a row changes nothing but the time it takes.
"""

from collections.abc import Sequence


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
