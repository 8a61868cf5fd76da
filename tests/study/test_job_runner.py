"""One training in a process of its own: its log, its lock, its end, and the end of the one that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dinov3.utils.folder_lock import locked_folder
from nnunetv2.errors import PreemptedError
from nnunetv2.study.job_runner import run_job
from nnunetv2.study.jobs import State
from tests.conftest import REPOSITORY
from tests.processes import LONGEST_WAIT, is_alive, wait_until
from tests.study.study_jobs import FINISH, make_job, mark

pytestmark = pytest.mark.slow

# Trains forever, and starts a process that does not react to being told to stop.
ENDLESS = """
ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", ignoring], stdout=subprocess.PIPE)
child.stdout.readline()
(fold / "pids").write_text(f"{os.getpid()} {child.pid} ")
time.sleep(600)
"""


def pids_of(path: Path) -> list[int]:
    text = path.read_text() if path.is_file() else ""
    return list(map(int, text.split())) if text.endswith(" ") else []


def test_a_training_runs_in_its_folders_and_is_finished_once(tmp_path):
    job = make_job(tmp_path, FINISH)
    assert run_job(job).is_finished
    log = job.log.read_text()
    assert f"['4', '2d', '1', '--seed', '0', '-pretrained_weights', 'a b.pth'] {tmp_path} {job.results}" in log
    assert f"$ {job.command_line(State.NEW)}\n" in log
    assert run_job(job).is_finished
    assert job.log.read_text() == log


def test_an_interrupted_training_is_continued_and_a_trained_one_validated(tmp_path):
    job = make_job(tmp_path, "print(words)\n(fold / 'checkpoint_final.pth').touch()")
    mark(job, "checkpoint_latest.pth")
    outcome = run_job(job)
    assert (outcome.state, outcome.is_finished) == (State.TRAINED, False)
    run_job(job)
    assert [line.split("'")[-2] for line in job.log.read_text().splitlines() if line.startswith("[")] == [
        "--c",
        "--val",
    ]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print('error: no such fold', file=sys.stderr)\nprint('bye')\nreturn 2", "error: no such fold"),
        ("print('first')\nraise MemoryError('too small')", "MemoryError: too small"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended by signal SIGKILL, mostly for lack of memory"),
    ],
)
def test_a_failure_has_a_reason(tmp_path, source, reason):
    outcome = run_job(make_job(tmp_path, source))
    assert (outcome.reason, outcome.is_finished) == (reason, False)


def test_what_another_process_trains_is_left_to_it(tmp_path):
    job = make_job(tmp_path, FINISH)
    with locked_folder(job.lock, "training"):
        assert run_job(job) is None
    assert run_job(job).is_finished


def test_a_training_that_a_signal_ended_is_resumed_by_the_same_command(tmp_path):
    job = make_job(tmp_path, "return 75")
    with pytest.raises(PreemptedError, match=f"A signal ended the training {job.name}, .* resumes it from its last"):
        run_job(job)


def test_a_training_started_by_hand_is_left_to_itself(tmp_path):
    assert run_job(make_job(tmp_path, "return 6")) is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_one_that_started_the_training(tmp_path, number):
    job = make_job(tmp_path, ENDLESS)
    program = (
        "import sys; from pathlib import Path; from tests.study.study_jobs import make_job\n"
        "from dinov3.utils.command_line import command\n"
        "from dinov3.utils.processes.stop_signals import ended_by_signals\n"
        "from nnunetv2.study.job_runner import run_job\n"
        f"run = ended_by_signals('Again')(lambda _: run_job(make_job(Path(sys.argv[1]), {ENDLESS!r})))\n"
        "sys.exit(command(run)())"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    starter = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment, stderr=subprocess.PIPE)
    pids = wait_until(lambda: pids_of(job.fold_folder / "pids"))
    starter.send_signal(number)
    starter.communicate(timeout=LONGEST_WAIT)
    assert starter.returncode == {signal.SIGTERM: 75, signal.SIGKILL: -signal.SIGKILL}[number]
    wait_until(lambda: not any(map(is_alive, pids)))
    with locked_folder(job.lock, "training"):
        pass
