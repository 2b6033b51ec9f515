"""Signals are answered while another thread works."""

import os
import signal
import threading

import pytest

from stl_deploy.exporters.onnx.runtime import interruptible


def test_results_and_errors_come_back():
    assert interruptible(lambda: 3) == 3
    with pytest.raises(KeyError, match="missing"):
        interruptible(lambda: {}["missing"])


def test_an_interrupt_is_answered_before_the_work_is_done():
    """The work ends only after the interrupt was answered: without a thread of its own it would wait for itself."""
    answered = threading.Event()
    in_time = []

    def work():
        os.kill(os.getpid(), signal.SIGUSR1)
        in_time.append(answered.wait(20))

    def answer(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, answer)
    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible(work)
        answered.set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    while not in_time:
        pass
    assert in_time == [True]


def test_in_another_thread_it_is_called_as_it_is():
    found = []
    thread = threading.Thread(target=lambda: found.append(interruptible(threading.current_thread)))
    thread.start()
    thread.join()
    assert found == [thread]
