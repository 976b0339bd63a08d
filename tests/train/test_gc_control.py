"""`pause_gc` leaves garbage collection to the trainer, and restores it afterwards."""

import gc

from gnano.train.trainer import pause_gc


def test_garbage_is_collected_only_on_request() -> None:
    collected: list[int] = []

    class Cycle:
        def __del__(self) -> None:
            collected.append(1)

    assert gc.isenabled()
    with pause_gc():
        assert not gc.isenabled()
        for _ in range(3_000):  # more than any threshold of the collector
            cycle = Cycle()
            cycle.itself = cycle  # type: ignore[attr-defined]
        del cycle
        assert collected == []
        gc.collect()
        assert len(collected) == 3_000
    assert gc.isenabled() and gc.get_freeze_count() == 0
