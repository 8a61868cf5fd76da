"""Row 9, training: a step that does not fit into memory is explained in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunetv2.run.run_training import run_training_entry
from nnunetv2.run.run_training_m2f import run_training_entry as run_training_m2f_entry
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tests.faults.conftest import one_line
from tests.training.nnUNetTrainer.test_nnUNetTrainer_m2f import SMALL

pytestmark = pytest.mark.integration

ON_A_GPU = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is free."
)
ON_THE_CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes. Error code 12")


@pytest.mark.parametrize("error", [ON_A_GPU, ON_THE_CPU], ids=["gpu", "cpu"])
def test_training_out_of_memory_names_what_was_tried_and_what_to_change(
    error: RuntimeError, tiny_images: Path, short_training, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setattr(nnUNetTrainer, "forward_loss", fail)
    code, errors = run(run_training_entry, "777", "2d", "0", "-device", "cpu")
    assert code == 1
    one_line(
        errors,
        "cpu ran out of memory while training 2 patches of 32 x 32 in fp32",
        "ried to allocate",
        "Such a step needs about",
        "Use a batch_size below 2, --precision bf16 or a smaller patch_size",
        "nnUNetPlans.json, configuration 2d",
    )


def test_vision_transformers_name_their_own_settings(
    tiny_images: Path, short_training, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ON_A_GPU

    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit.nnUNetTrainer_vit.train_step", fail)
    words = [*SMALL, "model.tuning=full", "model.gradient_checkpointing=false", "model.input_scale=2"]
    code, errors = run(run_training_m2f_entry, "777", "2d", "0", "-device", "cpu", *words)
    assert code == 1
    one_line(errors, "model.gradient_checkpointing=true, model.input_scale below 2, model.tuning=lora")


def test_other_errors_of_torch_are_no_lack_of_memory(
    tiny_images: Path, short_training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setattr(nnUNetTrainer, "forward_loss", fail)
    with pytest.raises(RuntimeError, match="^shapes do not match$"):
        run_training_entry(["777", "2d", "0", "-device", "cpu"])
