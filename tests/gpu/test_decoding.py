"""What a GPU is asked to do for a token of `1b`, with two of its layers."""

import pytest
from tests.gpu.fake_gpu import run_on_fake_gpu

from gnano.infer.graph_decode import STEPS_AHEAD

pytestmark = [pytest.mark.slow, pytest.mark.compile]


@pytest.mark.parametrize(
    ("settings", "of_a_layer", "others"),
    [
        ({}, 6, 9),
        ({"quantize": "int8"}, 6, 9),
        ({"quantize": "int4"}, 6, 9),
        ({"rows": 8}, 10, 9),
        ({"quantize": "int4", "rows": 16}, 9, 9),
        ({"temperature": 0.8}, 6, 27),
        ({"temperature": 0.8, "top_p": 0.9}, 6, 85),
    ],
    ids=str,
)
def test_a_token_is_one_launch_of_a_small_graph_that_nobody_waits_for(settings, of_a_layer, others):
    calls = run_on_fake_gpu("decode", layers=2, **settings)

    def captured(name: str) -> int:
        items = calls[name].items()
        return sum(n for what, n in items if what.startswith("captured ") and "ALLOC" not in what)

    def number(name: str, *kinds: str) -> int:
        return sum(n for what, n in calls[name].items() if what.startswith(kinds))

    assert 0 < captured("first") <= 2 * of_a_layer + others
    # ten tokens: a launch, a copy to the GPU and one back for each
    assert number("ten", "LAUNCH") == 10
    assert number("ten", "KERNEL", "TRITON", "GEMM", "ALLOC") == 0
    copies = {what: n for what, n in calls["ten"].items() if what.startswith("COPY")}
    assert copies == {"COPY pinned -> device": 10, "COPY device -> pinned": 10}
    # the only wait is for a step that was launched some steps earlier
    waits = {what for what in calls["ten"] if what.startswith("SYNC")}
    assert waits <= {"SYNC cudaEventSynchronize"}
    # a second text has the cache and the graphs of the first
    assert captured("second") == number("second", "ALLOC") == 0
    assert number("second", "LAUNCH") == STEPS_AHEAD + 1
    assert number("rest", "LAUNCH") + STEPS_AHEAD + 1 == 59, "steps beyond the last token"
