"""Background processes that make batches, and are replaced when they die."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import random
import signal
import socket
import struct
import time
import traceback
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from dinov3.utils.processes.process_end import become_worker
from nnunetv2.errors import NNUNetError
from nnunetv2.training.dataloading import batch_channel

logger = logging.getLogger(__name__)

_NUMBER = struct.Struct("!Q")
_LONGEST_NAME = 256  # bytes
_SECONDS_TO_END = 5


class AugmentationWorkerDied(NNUNetError, RuntimeError):
    """Background workers died repeatedly without raising an exception, usually out of memory."""


class Restarts:
    """Limits how often dead workers are replaced.

    Deaths are forgotten after a while: a training of weeks survives more of them than one that cannot go on.
    """

    def __init__(self, at_most: int = 3, seconds: float = 600) -> None:
        self.at_most, self._seconds = at_most, seconds
        self._deaths: deque[float] = deque()

    def take(self) -> int:
        """Records a death; returns the number of recent ones."""
        now = time.monotonic()
        while self._deaths and now - self._deaths[0] > self._seconds:
            self._deaths.popleft()
        self._deaths.append(now)
        return len(self._deaths)


class BatchWorker:
    """One background process, which makes the batches that it is asked for, in order.

    Args:
        loader: picklable iterator over batches, see `make_augmenter`.
        number: number of the worker, counted from 0.
    """

    def __init__(self, loader: Any, number: int) -> None:
        self._loader, self._number = loader, number
        self._process: multiprocessing.Process | None = None
        self.channel: socket.socket | None = None
        self.asked: deque[int] = deque()  # numbers of batches that it has not delivered

    def start(self, others: Sequence[BatchWorker]) -> None:
        """Starts the process, which makes what was asked for.

        Args:
            others: running workers; a forked process inherits their channels and must close them.
        """
        self._case = multiprocessing.RawArray("c", _LONGEST_NAME)  # no lock: its holder may be killed
        self.channel, end = socket.socketpair()
        is_forked = multiprocessing.get_start_method() == "fork"
        inherited = [self.channel, *(o.channel for o in others if o.channel is not None)] if is_forked else []
        seed = int(np.random.SeedSequence().generate_state(1)[0])
        arguments = (self._loader, self._number, seed, end, inherited, self._case)
        self._process = multiprocessing.Process(target=_make_batches, args=arguments, daemon=True)
        self._process.start()
        end.close()  # with the only other end, the channel ends together with the process
        for number in self.asked:
            self._send(number)

    def ask(self, number: int) -> None:
        """Asks for one more batch."""
        self.asked.append(number)
        self._send(number)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ConnectionError):  # it has died, which `receive` finds out
            self.channel.sendall(_NUMBER.pack(number))

    def receive(self) -> tuple[int, Any]:
        """Waits for a batch; returns its number and the batch.

        Raises:
            EOFError: the process has died, and all its batches were received.
            NNUNetError: the process found invalid data.
            RuntimeError: making the batch failed; the message contains the traceback.
        """
        batch, failure = batch_channel.receive(self.channel)
        if failure is not None:
            kind, message = failure
            raise kind(message)
        return self.asked.popleft(), batch

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()  # it has nothing to lose
            self._process.join(_SECONDS_TO_END)
            self.channel.close()
        self._process = self.channel = None

    def describe_death(self) -> str:
        """Tells how a dead process ended and which case it was reading."""
        self._process.join(_SECONDS_TO_END)
        code, case = self._process.exitcode, self._case.value.decode(errors="replace")
        how = "no exit code" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"({how}{_likely_cause(code)}) while it read case {case}" if case else f"({how}{_likely_cause(code)})"

    @property
    def process_id(self) -> int | None:
        return None if self._process is None else self._process.pid


def receive_ready(workers: Sequence[BatchWorker], restarts: Restarts, timeout: float | None) -> list[tuple[int, Any]]:
    """Receives the batches that are complete, one per worker; dead workers are replaced.

    Args:
        timeout: seconds to wait for one; None: no limit.

    Raises:
        AugmentationWorkerDied: too many workers died.
        Exception: see `BatchWorker.receive`.
    """
    received = []
    by_channel = {worker.channel: worker for worker in workers}
    for channel in wait(list(by_channel), timeout):
        worker = by_channel[channel]
        try:
            received.append(worker.receive())
        except EOFError:
            _replace(worker, workers, restarts)
    return received


def _replace(worker: BatchWorker, workers: Sequence[BatchWorker], restarts: Restarts) -> None:
    death, num_deaths = worker.describe_death(), restarts.take()
    if num_deaths > restarts.at_most:
        raise AugmentationWorkerDied(
            f"a data augmentation worker died {death}, the last of {num_deaths} in a short time; the usual causes are "
            "too little memory (the kernel kills with signal 9: set nnUNet_n_proc_DA to fewer workers), too little "
            "shared memory in /dev/shm (signal 7; docker: --shm-size or --ipc=host) and too few open files (ulimit "
            "-n); nnUNet_n_proc_DA=0 makes batches in the main process and shows errors where they happen"
        )
    logger.warning(
        "A data augmentation worker died %s; a new one repeats its work (%d of %d restarts)",
        death,
        num_deaths,
        restarts.at_most,
    )
    worker.stop()
    worker.start([other for other in workers if other is not worker])


def _likely_cause(exit_code: int | None) -> str:
    causes = {signal.SIGKILL: "most likely no memory was left", signal.SIGBUS: "most likely no shared memory was left"}
    cause = causes.get(-exit_code) if exit_code is not None else None
    return f", {cause}" if cause else ""


def _make_batches(
    loader: Any, number: int, seed: int, channel: socket.socket, inherited: Sequence[socket.socket], case: Any
) -> None:
    """Runs in the worker."""
    become_worker()
    for other in inherited:
        other.close()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # forked workers would otherwise draw identical numbers
    torch.set_num_threads(1)  # one core per worker

    def note_case(name: str) -> None:
        case.value = name.encode()[: _LONGEST_NAME - 1]

    try:
        with threadpool_limits(1):
            loader.note_case = note_case
            loader.set_thread_id(number)
            while len(request := channel.recv(_NUMBER.size, socket.MSG_WAITALL)) == _NUMBER.size:
                loader.next_batch = _NUMBER.unpack(request)[0]
                batch, failure = _next_batch(loader)
                batch_channel.send(channel, (batch, failure))
                if failure is not None:
                    return
    except ConnectionError:
        pass  # the parent has stopped or ended


def _next_batch(loader: Any) -> tuple[Any, tuple[type[Exception], str] | None]:
    try:
        return next(loader), None
    except NNUNetError as err:
        return None, (type(err), str(err))
    except Exception as err:  # the parent must see every failure
        return None, (RuntimeError, f"making a batch failed with {err!r}\n{traceback.format_exc()}")
