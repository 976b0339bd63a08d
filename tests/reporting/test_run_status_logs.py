"""A log read backwards gives the same lines as read forwards."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnano.reporting import run_status
from gnano.reporting.run_status import iter_json_objects_reversed

OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)))
TORN = st.sampled_from(["", "{", '{"step": 3, "lo', "[1]", "nan", "é"])


@pytest.fixture(scope="module", params=[1, 7, 2**16])
def path(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A log that is read in blocks of one, a few or many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_status, "LOG_BLOCK_BYTES", request.param)
        yield tmp_path_factory.mktemp("log") / "log.jsonl"


@settings(deadline=None, max_examples=30)
@given(objects=OBJECTS, torn=TORN)
def test_complete_lines_are_read_newest_first(path, objects, torn):
    lines = [json.dumps(o, ensure_ascii=False) for o in objects]
    path.write_text("\n".join([*lines[:2], torn, *lines[2:], torn]), encoding="utf-8")
    assert list(iter_json_objects_reversed(path)) == objects[::-1]


@settings(deadline=None, max_examples=30)
@given(objects=OBJECTS)
def test_only_lines_with_the_text_are_read(path, objects):
    marked = [{**o, "heldout": 1} if n % 3 else {"step": n} for n, o in enumerate(objects)]
    path.write_text("".join(json.dumps(o) + "\n" for o in marked))
    found = list(iter_json_objects_reversed(path, '"heldout"'))
    assert found == [o for o in marked if "heldout" in o][::-1]
