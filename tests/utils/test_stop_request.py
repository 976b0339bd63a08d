"""Signals that request a stop are recorded, and an ignored SIGHUP stays ignored."""

import signal
from collections.abc import Iterator

import pytest

from gnano.utils.stop_request import SignalHandler


@pytest.fixture
def hangup() -> Iterator[None]:
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SignalHandler.signals)
def test_a_signal_is_recorded_and_its_handler_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with SignalHandler.listen() as stop:
        assert not stop.should_stop()
        signal.raise_signal(number)
        assert stop.should_stop() and stop.received_signal == number
    assert signal.getsignal(number) == before


def test_under_nohup_a_closed_terminal_requests_no_stop(hangup: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with SignalHandler.listen() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.should_stop()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
