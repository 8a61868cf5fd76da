"""Run a command in this process, in one that `torchrun` started, or in several new processes."""

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

logger = logging.getLogger(__name__)

_FOREVER = timedelta(days=365)
_SECONDS_TO_REACT = 20  # torchrun kills processes 30 s after it told them to stop


@dataclass(frozen=True)
class Group:
    """How the processes of a command cooperate; picklable, since it is sent to them."""

    device_type: str
    """cuda: one GPU per process; cpu: the processes share the cores"""
    advice: str
    """what the user can do after a process died; appended to the message"""
    computes_together: bool = True
    """False: each process works on its own, finishes even if another fails, and only synchronises at the end"""


def train_in_processes(train: Callable[..., None], args: tuple, num_gpus: int, device_type: str) -> None:
    """Call `train(*args)` in every participating process, see `run_in_processes`."""
    if num_gpus <= 1 and num_started_processes() == 1:
        _warn_of_independent_tasks()
    run_in_processes(train, args, num_gpus, _training_group(device_type))


def train_as_one_of_several(train: Callable[..., None], args: tuple, device_type: str) -> None:
    """Join the process group described by the environment and call `train(*args)`."""
    run_as_one_of_several(train, args, _training_group(device_type))


def _training_group(device_type: str) -> Group:
    return Group(device_type, advice="Continue the training with --c")


def _warn_of_independent_tasks() -> None:
    num_tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if num_tasks != "1":
        logger.warning(
            "srun runs this command %s times, and each trains on its own. If they were meant to train one fold "
            "together, start one task per machine and in it torchrun (docs/multi_gpu.md)",
            num_tasks,
        )


def run_in_processes(function: Callable[..., None], args: tuple, num_gpus: int, group: Group) -> None:
    """Call `function(*args)` in every participating process.

    Args:
        function: importable by name; it queries torch for its process group.
        num_gpus: the command's `-num_gpus`; if above 1, that many processes are started here.

    Raises:
        UsageError: `num_gpus` is below 1 or exceeds the GPUs of this machine, `torchrun` has also started processes,
            or the device does not support process groups.
        ProcessDiedError: a process was killed, or failed with an error that is not meant for users.
        ConnectionLostError: the same, seen from a process that `torchrun` started.
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
    """Raise `UsageError` for a number of processes below 1."""
    if num_gpus < 1:
        raise UsageError(f"-num_gpus is {num_gpus}; it must be at least 1")


def num_started_processes() -> int:
    """Number of processes that `torchrun` started for this command; 1 without it."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return 1
    from dinov3.utils.processes.process_group import world_size_in_environment

    return world_size_in_environment()


def run_as_one_of_several(function: Callable[..., None], args: tuple, group: Group) -> None:
    """Join the process group described by the environment and call `function(*args)`."""
    import torch

    from dinov3.utils.processes import process_group

    log_the_first_process_only()
    # Independent processes only meet at the end, possibly hours apart: no GPU backend, no time limit.
    settings = {} if group.computes_together else {"backend": "gloo", "timeout": _FOREVER}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from dinov3.utils.processes.process_end import end_with_parent

        end_with_parent()
    with _line_on_sigterm_of_torchrun(group):
        try:
            with process_group.process_group_from_environment(torch.device(group.device_type), **settings):
                function(*args)
        except ConnectionLostError as err:
            if "TORCHELASTIC_RUN_ID" not in os.environ:
                raise  # the process that started this one reports it for all
            number, world_size = process_group.rank_and_world_size()
            message = f"Process {number} of {world_size} (the first is 0) {err}; the report of torchrun says which"
            raise ConnectionLostError(f"{message}. {group.advice}") from err


def log_the_first_process_only() -> None:
    """Limit the logging of all but the first process of a group to warnings."""
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger().setLevel(logging.WARNING)


def _run_in_new_process(function: Callable[..., None], args: tuple, group: Group) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    run_as_one_of_several(function, args, group)


def _require_gpus(device_type: str, num_gpus: int) -> None:
    import torch

    if device_type == "cuda" and num_gpus > torch.cuda.device_count():
        raise UsageError(f"-num_gpus is {num_gpus} and this machine shows {torch.cuda.device_count()} GPUs")


def _line_on_sigterm_of_torchrun(group: Group) -> AbstractContextManager:
    """Under `torchrun`, which stops all processes when one ends, refer to its report on SIGTERM."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.name == "nt":
        return contextlib.nullcontext()
    from dinov3.utils.processes.process_end import line_on_sigterm
    from dinov3.utils.processes.stop_signals import requested

    number, world_size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    return line_on_sigterm(
        f"error: process {number} of {world_size} (the first is 0) was told to stop; if another one failed, the report "
        f"of torchrun says which. {group.advice}",
        grace=_SECONDS_TO_REACT if group.computes_together else 0,
        is_handled=requested,
    )
