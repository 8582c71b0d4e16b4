"""Signals as requests to stop."""

import signal
import subprocess
import sys
import threading

import pytest

from whirl.engine.interrupt import finish_batch_on_interrupt, until_workers_exit
from whirl.engine.state import TrainingState


def test_second_signal_stops_immediately():
    state = TrainingState()
    with pytest.raises(KeyboardInterrupt), finish_batch_on_interrupt(state):
        signal.raise_signal(signal.SIGINT)
        assert state.interrupted
        signal.raise_signal(signal.SIGINT)


def test_restores_the_previous_handler():
    before = signal.getsignal(signal.SIGINT)
    with finish_batch_on_interrupt(TrainingState()):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_has_no_effect_outside_the_main_thread():
    failures = []

    def work():
        try:
            with finish_batch_on_interrupt(TrainingState()):
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []


def test_import_installs_no_handler():
    code = (
        "import signal; before = signal.getsignal(signal.SIGINT); import whirl.engine.interrupt; "
        "assert signal.getsignal(signal.SIGINT) is before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("may_end", [True, False])
def test_dead_worker_raises_unless_the_epoch_may_end(may_end):
    def batches():
        yield 1
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")

    received = []
    if may_end:
        received.extend(until_workers_exit(batches(), lambda: True))
    else:
        with pytest.raises(ChildProcessError, match="worker process"):
            received.extend(until_workers_exit(batches(), lambda: False))
    assert received == [1]
