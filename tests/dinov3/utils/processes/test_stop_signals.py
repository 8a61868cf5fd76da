"""Signals to this process: when they take effect, and when they wait."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dinov3.utils.errors import PreemptedError
from dinov3.utils.processes import stop_signals
from dinov3.utils.processes.stop_signals import deferred, ended_by_signals, interruptible, requested


def send(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_block_as_an_error_that_nobody_swallows(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    with (
        pytest.raises(PreemptedError, match=rf"^Stopped by {number.name}\. Use --c$") as error,
        ended_by_signals("Use --c"),
    ):
        try:
            send(number)
        except Exception:  # noqa: BLE001 - what must not happen
            pytest.fail("swallowed")
    assert error.value.exit_code == 75
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before
    assert not stop_signals.are_handled()


def test_a_deferred_signal_waits_for_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(PreemptedError), ended_by_signals("again"), ended_by_signals("ignored inside another one"):
        with deferred():
            assert requested() is None
            send()
            send()  # the same request again, as of torchrun
            done.append(requested())
        done.append("after")
    assert done == ["SIGTERM"]


def test_a_block_that_has_reacted_goes_on() -> None:
    with ended_by_signals("again"):
        with deferred(take_effect_at_end=False):
            send(signal.SIGUSR1)
        assert requested() == "SIGUSR1"
    assert requested() is None


@pytest.mark.parametrize("is_before", [True, False])
def test_an_interruptible_part_of_a_deferred_block_ends_at_once(is_before: bool) -> None:
    done = []
    with ended_by_signals("again"), deferred(take_effect_at_end=False):
        if is_before:
            send()
        with pytest.raises(stop_signals.StopNow), interruptible():
            done.append("inside")
            send()
            done.append("never")
        done.append("after")
    assert done == (["after"] if is_before else ["inside", "after"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_workers_end_on_signals_without_a_word() -> None:
    with ended_by_signals("again"), deferred():
        reader, writer = os.pipe()
        worker = os.fork()
        if worker == 0:
            os.write(writer, b"x")
            signal.pause()
            os._exit(0)
        os.read(reader, 1)
        os.kill(worker, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM


def test_other_threads_handle_no_signals() -> None:
    seen = []

    def run() -> None:
        with ended_by_signals("again"):
            seen.append(stop_signals.are_handled())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False]
