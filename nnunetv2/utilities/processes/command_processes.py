"""Carry out a command in this process, as one of those that `torchrun` started, or in several new ones."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from dinov3.utils.errors import ConnectionLostError
from nnunetv2.errors import UsageError

_FOREVER = timedelta(days=365)


@dataclass(frozen=True)
class Group:
    """How the processes of a command belong together; plain data, so that it can be sent to them."""

    device_type: str
    """cuda: one GPU for each process; cpu: they share the cores"""
    advice: str
    """what to do after one of them died, for the message"""
    computes_together: bool = True
    """otherwise each works on its own, waits for the others only at the end, and finishes when another one fails"""


def run_in_processes(function: Callable[..., None], args: tuple, num_gpus: int, group: Group) -> None:
    """Calls `function(*args)` in every process that is to take part.

    Args:
        function: importable by name; it finds out from torch whether it is one of several.
        num_gpus: of the command: that many processes are started here, where it is above 1.

    Raises:
        UsageError: no process, two ways of starting processes at once, more processes than GPUs, or a device that knows
            no groups.
        ProcessDiedError: one of the processes was killed, or met an error that is not meant for users.
        ConnectionLostError: likewise, seen from one of the processes that `torchrun` started.
    """
    require_num_gpus(num_gpus)
    num_started = num_started_processes()
    if max(num_started, num_gpus) > 1 and group.device_type == "mps":
        raise UsageError("Several processes need -device cuda (or cpu); mps is for one process")
    if num_started > 1:
        if num_gpus > 1:
            raise UsageError(
                f"torchrun has started {num_started} processes already; leave out -num_gpus {num_gpus}, or start the "
                f"command without torchrun"
            )
        run_as_one_of_several(function, args, group)
    elif num_gpus > 1:
        from dinov3.utils.processes.launch import launch

        _require_gpus(group.device_type, num_gpus)
        new_process = (_run_in_new_process, (function, args, group), num_gpus)
        launch(*new_process, advice=group.advice, others_finish=not group.computes_together)
    else:
        function(*args)


def require_num_gpus(num_gpus: int) -> None:
    """Refuses a number of processes below 1. Raises `UsageError` accordingly."""
    if num_gpus < 1:
        raise UsageError(f"-num_gpus is {num_gpus}; it must be at least 1")


def num_started_processes() -> int:
    """How many processes `torchrun` started for this command; 1 without it."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return 1
    from dinov3.utils.processes.process_group import world_size_in_environment

    return world_size_in_environment()


def run_as_one_of_several(function: Callable[..., None], args: tuple, group: Group) -> None:
    """Joins the group that the environment describes and calls `function(*args)`."""
    import torch

    from dinov3.utils.processes import process_group

    log_the_first_process_only()
    settings = {} if group.computes_together else {"backend": "gloo", "timeout": _FOREVER}
    with _line_on_sigterm_of_torchrun(group.advice):
        try:
            with process_group.process_group_from_environment(torch.device(group.device_type), **settings):
                function(*args)
        except ConnectionLostError as err:
            if "TORCHELASTIC_RUN_ID" not in os.environ:
                raise  # the process that started this one says it for all
            number, world_size = process_group.rank_and_world_size()
            message = f"Process {number} of {world_size} (the first is 0) {err}; the report of torchrun says which"
            raise ConnectionLostError(f"{message}. {group.advice}") from err


def log_the_first_process_only() -> None:
    """Lets all other processes of a group, as the environment describes it, log warnings alone."""
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger().setLevel(logging.WARNING)


def _run_in_new_process(function: Callable[..., None], args: tuple, group: Group) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    run_as_one_of_several(function, args, group)


def _require_gpus(device_type: str, num_gpus: int) -> None:
    import torch

    if device_type == "cuda" and num_gpus > torch.cuda.device_count():
        raise UsageError(f"-num_gpus is {num_gpus} and this machine shows {torch.cuda.device_count()} GPUs")


def _line_on_sigterm_of_torchrun(advice: str) -> AbstractContextManager:
    """When one process ends, torchrun tells the others to stop; its report says which one it was."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.name == "nt":
        return contextlib.nullcontext()
    from dinov3.utils.processes.process_end import line_on_sigterm

    number, world_size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    return line_on_sigterm(
        f"error: process {number} of {world_size} (the first is 0) was told to stop; if another one failed, the report "
        f"of torchrun says which. {advice}"
    )
