"""`Stop`: what signals do to a run, and the code with which it ends."""

import os
import signal

import pytest

from kdbench.runner.stop import Stop

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def exit_code(work, said=print):
    """The code with which ``work(stop)`` exits among the signals that a stop listens to."""

    def listen():
        with Stop().listening(said) as stop:
            work(stop)

    with pytest.raises(SystemExit) as ended:
        listen()
    return ended.value.code


@pytest.mark.parametrize(("number", "code"), CODES)
def test_the_first_signal_asks_and_the_second_exits(messages, number, code):
    def twice(stop):
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        assert stop.exit_code == code
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    assert exit_code(twice, messages.append) == code
    assert messages == ["stopping after this step; the state is being saved"]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_code_that_ray_made_of_it_is_that_of_the_signal(number, code):
    """Ray catches a SystemExit that a signal raises within its calls and raises one of code 1."""

    def within_ray(stop):
        os.kill(os.getpid(), number)
        try:
            os.kill(os.getpid(), number)
        except SystemExit:
            raise SystemExit(1) from None

    assert exit_code(within_ray) == code


def test_an_exit_without_a_signal_keeps_its_code():
    def leave(stop):
        raise SystemExit(7)

    assert exit_code(leave) == 7
