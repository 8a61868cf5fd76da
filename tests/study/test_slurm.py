"""What is submitted to Slurm, and that its tasks train."""

from __future__ import annotations

import sys

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.study.run_study import TrainingsFailedError
from nnunetv2.study.slurm import SlurmTraining, make_executor, parameters
from nnunetv2.study.study_config import SlurmSection
from tests.study.study_jobs import FINISH, make_job

pytestmark = pytest.mark.slow


def test_the_section_becomes_options_of_sbatch(tmp_path):
    slurm = pytest.importorskip("submitit.slurm.slurm")
    pytest.importorskip("submitit.auto.auto")
    section = SlurmSection("gpu", 2, 8, 31.5, 1.5, 4, 5, ("module load cuda",), {"account": "me"})
    given = parameters(section)
    renamed = {
        "timeout_min": "time", "tasks_per_node": "ntasks_per_node", "slurm_array_parallelism": "array_parallelism",
        "slurm_mem": "mem", "slurm_partition": "partition", "slurm_setup": "setup",
        "slurm_additional_parameters": "additional_parameters",
    }  # fmt: skip
    text = slurm._make_sbatch_string(
        "COMMAND", tmp_path, **{renamed.get(key, key): each for key, each in given.items()}
    )
    for line in (
        "--partition=gpu", "--gpus-per-node=2", "--cpus-per-task=8", "--mem=32256M", "--time=90", "--account=me",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "\nmodule load cuda\n" in text
    assert {"timeout_min", "cpus_per_task", "nodes", "tasks_per_node", "slurm_array_parallelism"} == parameters(
        SlurmSection(gpus=0)
    ).keys()


def test_tasks_train_and_are_queued_again_as_they_are(tmp_path):
    pytest.importorskip("submitit")
    job = make_job(tmp_path, FINISH)
    executor = make_executor(tmp_path / "slurm", SlurmSection(gpus=0), "study", cluster="debug")
    with executor.batch():
        task = executor.submit(SlurmTraining(job))
    assert task.result() == "unet, seed 0, fold 1: finished"
    assert SlurmTraining(job).checkpoint().function == SlurmTraining(job)


def test_a_task_that_fails_says_why(tmp_path):
    job = make_job(tmp_path, "print('error: no such fold')\nreturn 2")
    with pytest.raises(TrainingsFailedError, match=r"unet, seed 0, fold 1: error: no such fold \(.*logs/"):
        SlurmTraining(job)()


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="there is no srun here; start the study where jobs are submitted"):
        make_executor(tmp_path, SlurmSection(), "study")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UsageError, match=r'needs submitit; install it by: pip install "nnunetv2\[slurm\]"'):
        make_executor(tmp_path, SlurmSection(), "study")
