"""Signals become an event, and the handlers that were there come back."""

from __future__ import annotations

import os
import signal
import threading

from mmgen.stopping import stop_signals


def test_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(1)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_gets_no_signals() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_signals() as stop:
            seen.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
