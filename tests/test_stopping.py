"""`stopping`: signals are heard inside, and only there."""

import os
import signal
import threading

import pytest

from hf_nasbert import stopping
from hf_nasbert.stopping import STOP_SIGNALS, StopRequest, TimeArguments, leave, time_limit


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


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("2", 120), (" 3 M ", 180)])
def test_a_time_is_read_as_people_write_it(text, seconds):
    assert TimeArguments(max_time=text).seconds == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "1d", "1e3", "nan", "m", "1 2", "0s"])
def test_what_is_no_time_is_refused_by_name(text):
    with pytest.raises(ValueError, match=r"^max_time="):
        TimeArguments(max_time=text)


def test_when_the_time_is_up_every_request_asks_to_stop(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    stop = StopRequest()
    with time_limit(60):
        now[0] = 159.0
        assert not stop.is_set
        with time_limit(None):
            now[0] = 160.0
            assert stop.is_set
    assert not stop.is_set
