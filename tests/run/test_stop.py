"""When a signal ends the program where it is, and when it waits for the next safe point."""

import contextlib
import os
import signal

import pytest

from segtrain.errors import ConfigError, Interrupted
from segtrain.run.stop import Stop


@pytest.fixture
def stop():
    stop = Stop().install()
    yield stop
    stop.restore()


def receive(number=signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def test_within_at_once_the_signal_raises_where_the_program_is(stop):
    reached = []
    with pytest.raises(Interrupted) as ended, stop.at_once():
        reached.append("before")
        receive()
        reached.append("after")
    assert reached == ["before"] and ended.value.exit_code == 143


def test_elsewhere_it_waits_for_the_next_safe_point(stop):
    with stop.at_once():
        pass
    receive()
    assert stop.requested == signal.SIGTERM
    with pytest.raises(Interrupted):
        stop.raise_if_requested()


def test_a_signal_from_before_is_obeyed_on_entering(stop):
    receive()
    with pytest.raises(Interrupted), stop.at_once():
        pytest.fail("the block was entered")


def test_what_swallows_the_exception_does_not_swallow_the_signal(stop):
    with pytest.raises(Interrupted), stop.at_once(), contextlib.suppress(Exception):
        receive()
    with pytest.raises(Interrupted):
        stop.raise_if_requested()


def test_nor_does_what_turns_it_into_another_error(stop):
    with pytest.raises(Interrupted), stop.at_once():
        try:
            receive()
        except Exception as error:
            raise ConfigError("a file cannot be read") from error


def test_an_inner_block_ends_before_the_outer_one(stop):
    with pytest.raises(Interrupted), stop.at_once():
        with stop.at_once():
            pass
        receive()
        pytest.fail("the outer block went on")
