"""Which curves does a run have? Its loss, and its held-out bits per byte, whole and by source.

A curve is what a plot needs and no more: steps and finite values. A step that was not measured
(held-out text is read only now and then) or that blew up to NaN is no point of the curve.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[Mapping[str, Any]]  # what read_metrics returns


@dataclass(frozen=True)
class Curve:
    name: str
    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


def loss_curve(metrics: Rows) -> Curve:
    """Training loss in nats per token."""
    return _curve("loss", ((row["step"], row.get("loss")) for row in metrics))


def heldout_curves(metrics: Rows) -> list[Curve]:
    """Held-out bits per byte: the total, then each source by name.

    Empty before the first measurement.
    """
    measured = [(row["step"], row["heldout"]) for row in metrics if row.get("heldout")]
    if not measured:
        return []
    names = {name for _, heldout in measured for name in heldout.get("sources", {})}
    total = _curve("total", ((step, heldout.get("bits_per_byte")) for step, heldout in measured))
    sources = [
        _curve(name, ((step, heldout.get("sources", {}).get(name)) for step, heldout in measured))
        for name in sorted(names)
    ]
    return [curve for curve in [total, *sources] if len(curve)]


def smooth(curve: Curve) -> Curve:
    """The running mean over a twentieth of the run, without lag.

    The window is centred and narrower over the first steps, where the loss falls so fast that
    a wide one would lie above every point. At the end it loses only the half that has not
    happened yet, so that the last value is still a mean.
    """
    n = len(curve)
    here = np.arange(n)
    reach = np.minimum(here // 4, max(1, n // 40))
    start, stop = here - reach, np.minimum(here + reach + 1, n)
    sums = np.concatenate([[0.0], np.cumsum(curve.values)])
    return Curve(curve.name, curve.steps, (sums[stop] - sums[start]) / (stop - start))


def _curve(name: str, points: Iterable[tuple[int, Any]]) -> Curve:
    finite = [(s, v) for s, v in points if isinstance(v, int | float) and math.isfinite(v)]
    steps, values = zip(*finite, strict=True) if finite else ((), ())
    return Curve(name, np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64))
