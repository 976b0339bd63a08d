"""Python's garbage is collected between steps, and things are as before afterwards."""

import gc

from gnano.train.trainer import pause_gc


def test_nothing_is_collected_but_when_asked() -> None:
    gone: list[int] = []

    class Knot:
        def __del__(self) -> None:
            gone.append(1)

    assert gc.isenabled()
    with pause_gc():
        assert not gc.isenabled()
        for _ in range(3_000):  # more than any threshold of the collector
            knot = Knot()
            knot.itself = knot  # type: ignore[attr-defined]
        del knot
        assert gone == []
        gc.collect()
        assert len(gone) == 3_000
    assert gc.isenabled() and gc.get_freeze_count() == 0
