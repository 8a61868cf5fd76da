"""Signals that end a computation: it saves its state first; a second signal ends it at once.

`ended_by_signals` handles SIGINT, SIGTERM and SIGUSR1 (Slurm's warning before the time limit). They raise
`PreemptedError` at once, except in blocks of `deferred`: there a loop asks `requested` after each step, or a
`StopVote` if several processes must stop after the same step.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from dinov3.utils.errors import PreemptedError

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
STOP_RANK = getattr(signal, "SIGUSR2", None)  # from `launch` to its processes, which may also get a signal themselves
# Within this time, a signal is the same request once more: `timeout`, torchrun and Slurm signal some processes twice.
_SECONDS_OF_ONE_REQUEST = 0.3
_SECONDS_OF_ONE_REQUEST_IN_GROUPS = 2.0


class StopNow(BaseException):
    """Raised where a signal takes effect; no `except Exception` on the way may swallow it."""


@dataclass
class _Handling:
    received: int | None = None
    at: float = 0.0
    is_deferred: bool = False


_handling: _Handling | None = None  # signals belong to the process


@contextlib.contextmanager
def ended_by_signals(advice: str) -> Iterator[None]:
    """Turns the first signal within the block into an error; a second one ends the process at once.

    Does nothing inside another such block, or outside of the main thread, which cannot handle signals.

    Args:
        advice: end of the message: how to resume.

    Raises:
        PreemptedError: a signal was received.
    """
    global _handling  # noqa: PLW0603 - see there
    if _handling is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _handling = _Handling()
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    if STOP_RANK is not None and _is_one_of_several():
        numbers.append(STOP_RANK)
    _restore_defaults_in_forks()
    before = {number: signal.signal(number, _receive) for number in numbers}
    try:
        yield
    except StopNow:
        raise PreemptedError(f"Stopped by {requested()}. {advice}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _handling = None


@contextlib.contextmanager
def deferred(*, take_effect_at_end: bool = True) -> Iterator[None]:
    """Lets signals wait within the block.

    Args:
        take_effect_at_end: whether a signal that the block has not reacted to ends the computation after the block.
    """
    if _handling is None or _handling.is_deferred:
        yield
        return
    _handling.is_deferred = True
    try:
        yield
    finally:
        _handling.is_deferred = False
    if _handling.received is not None and take_effect_at_end:
        raise StopNow


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within a block of `deferred`, lets signals take effect at once, also one that came before.

    Does nothing in a group of processes, where one that leaves alone would keep the others waiting.

    Raises:
        StopNow: a signal was received.
    """
    if _handling is None or not _handling.is_deferred or _is_one_of_several():
        yield
        return
    _handling.is_deferred = False
    try:
        if _handling.received is not None:
            raise StopNow
        yield
    finally:
        _handling.is_deferred = True


def are_handled() -> bool:
    """True within `ended_by_signals`."""
    return _handling is not None


def requested() -> str | None:
    """Returns the name of the signal that asked this process to stop; None without one."""
    if _handling is None or _handling.received is None:
        return None
    number = _handling.received
    return "the process that started this one" if number == STOP_RANK else signal.Signals(number).name


class StopVote:
    """Lets all processes of a group stop after the same step when one of them was asked to.

    The processes exchange one number per step on the CPU. The result is read one step later, so that nobody waits for
    it. All processes must create it, and call `after_step` equally often.
    """

    def __init__(self) -> None:
        from dinov3.utils.processes.process_group import is_distributed

        self._group: Any = None
        self._running: tuple[Any, Tensor] | None = None
        if is_distributed():
            from torch import distributed

            self._group = distributed.new_group(backend="gloo")  # NCCL would make every step wait for the GPU

    def after_step(self) -> bool:
        """True if the processes are to stop now."""
        if self._group is None:
            return requested() is not None
        import torch
        from torch import distributed

        is_over = self.result()
        votes = torch.tensor([requested() is not None], dtype=torch.uint8)
        work = distributed.all_reduce(votes, distributed.ReduceOp.MAX, group=self._group, async_op=True)
        self._running = work, votes
        return is_over

    def result(self) -> bool:
        """Waits for the votes of the last step; True if any process asked to stop."""
        if self._running is None:
            return False
        (work, votes), self._running = self._running, None
        work.wait()
        return bool(votes.item())


def _receive(number: int, frame: FrameType | None) -> None:
    assert _handling is not None  # the handlers are only installed meanwhile
    if _handling.received is None:
        _handling.received, _handling.at = number, time.monotonic()
        if not _handling.is_deferred:
            raise StopNow
        return
    window = _SECONDS_OF_ONE_REQUEST_IN_GROUPS if _is_one_of_several() else _SECONDS_OF_ONE_REQUEST
    if number != STOP_RANK and time.monotonic() - _handling.at > window:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


@functools.cache
def _restore_defaults_in_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_restore_defaults)


def _restore_defaults() -> None:
    """Workers that a trainer forks itself end on signals, as without `ended_by_signals`."""
    global _handling  # noqa: PLW0603 - see there
    if _handling is None:
        return
    _handling = None
    for number in signal.valid_signals():
        if signal.getsignal(number) is _receive:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _is_one_of_several() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"
