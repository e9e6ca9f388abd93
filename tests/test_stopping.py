"""`stopping`: signals are heard inside, and only there."""

import os
import signal
import threading

import pytest

from hf_nasbert.stopping import STOP_SIGNALS, StopRequest, leave


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_is_heard_and_its_handler_comes_back(number):
    before = {other: signal.getsignal(other) for other in STOP_SIGNALS}
    with StopRequest() as stop:
        assert not stop.is_set
        os.kill(os.getpid(), number)
        assert stop.is_set
    assert {other: signal.getsignal(other) for other in STOP_SIGNALS} == before


def test_the_signals_are_those_of_schedulers():
    assert set(STOP_SIGNALS) == {signal.SIGTERM, signal.SIGUSR1}


def test_in_another_thread_it_can_only_be_set():
    heard = []

    def work():
        with StopRequest() as stop:
            stop.set()
            heard.append(stop.is_set)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [True]


def test_leaving_says_how_to_go_on_and_is_no_failure(capsys):
    with pytest.raises(SystemExit) as ended:
        leave("the same command goes on")
    assert ended.value.code == 0
    assert "the same command goes on" in capsys.readouterr().err
