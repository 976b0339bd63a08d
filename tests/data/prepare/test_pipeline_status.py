"""The status that a user sees: progress, speed and time left."""

from types import SimpleNamespace

import pytest

from gnano.data.prepare.pipeline import Counts, PrepareStatus, SourceStatus
from gnano.utils.formatting import format_clock


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds): set the time since the start."""

    def pass_by(seconds):
        now = SimpleNamespace(monotonic=lambda: 1_000.0 + seconds)
        monkeypatch.setattr("gnano.data.prepare.pipeline.time", now)

    pass_by(0)
    return pass_by


def status(**sources):
    return PrepareStatus(sources, started_at=1_000.0)


def test_finished_and_unfinished_tasks_count_together(clock):
    source = SourceStatus(finished=Counts(5, 50, 10))
    source.in_progress = {3: Counts(1, 10, 2), 4: Counts(2, 20, 4)}
    assert source.counts == Counts(8, 80, 16)
    assert status(a=source, b=source).counts == Counts(16, 160, 32)


def test_the_time_left_follows_from_the_average_speed(clock):
    watched = status(a=SourceStatus(expected_tokens=1_000), b=SourceStatus(expected_tokens=500))
    assert "left" not in str(watched)  # no pace yet
    clock(10)
    watched.sources["a"].finished = Counts(tokens=300)
    assert f"{format_clock(10 / 300 * (700 + 500))} left" in str(watched)
    # one that gave more than was expected does not shorten the other
    watched.sources["a"].finished = Counts(tokens=2_000)
    assert f"{format_clock(10 / 2_000 * 500)} left" in str(watched)


def test_the_speed_ignores_tokens_of_earlier_processes(clock):
    watched = status(a=SourceStatus(expected_tokens=1_000, finished=Counts(9, 9_000_000, 400)))
    watched.resumed_counts = watched.counts
    clock(5)
    assert str(watched).splitlines()[0].endswith("0.0 MB/s")
    watched.sources["a"].finished = Counts(10, 19_000_000, 500)
    assert f"2.0 MB/s, {format_clock(5 / 100 * 500)} left" in str(watched)


def test_every_source_has_a_line_of_counts(clock):
    watched = status(
        web=SourceStatus(
            expected_tasks=10,
            expected_tokens=4_000_000,
            finished_tasks=3,
            finished=Counts(1_234, 9, 1_000_000),
        ),
        code=SourceStatus(expected_tasks=2, expected_tokens=1_000_000, downloaded_bytes=2_500_000),
    )
    clock(60)
    first, web, code = str(watched).splitlines()
    assert first.startswith("20% of about 5 M tokens") and "4:00 left" in first
    assert web.split() == "web 3/10 tasks, 1,234 documents, 1 M tokens".split()
    assert code.split() == "code 0/2 tasks, 0 documents, 0 tokens, 2.5 MB downloaded".split()


def test_an_empty_status_can_be_printed(clock):
    assert "0%" in str(status()) and "0%" in str(status(a=SourceStatus()))
