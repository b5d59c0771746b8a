"""Real signals, sent to this process."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from luthier.engine.interrupt import StopSignals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's here")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_second_stops(number: signal.Signals) -> None:
    told: list[str] = []
    before = signal.getsignal(number)
    with StopSignals(told.append) as stop:
        stop.has_work = True
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        assert told == [number.name]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert told == [number.name]
    assert signal.getsignal(number) is before


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with StopSignals(lambda name: None):
            assert signal.getsignal(signal.SIGTERM) is not before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert signal.getsignal(signal.SIGTERM) is before


def test_inert_outside_the_main_thread() -> None:
    seen: list[bool] = []

    def work() -> None:
        with StopSignals(lambda name: None) as stop:
            seen.append(stop.requested)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
    assert signal.getsignal(signal.SIGINT) is before


def test_with_nothing_to_lose_the_first_signal_stops_at_once():
    told: list[str] = []
    with StopSignals(told.append) as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert not stop.requested
        stop.has_work = True
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
    assert told == ["SIGINT"]


def test_sigusr1_asks_for_one_checkpoint_and_for_no_stop():
    told: list[str] = []
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals(told.append) as stop:
        assert not stop.take_checkpoint_request()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not stop.requested
        assert stop.take_checkpoint_request()
        assert not stop.take_checkpoint_request()
    assert told == ["SIGUSR1"]
    assert signal.getsignal(signal.SIGUSR1) is before
