"""Benchmark: five epochs, to measure the duration of one."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from dinov3.utils.atomic_files import read_json, write_json
from dinov3.utils.processes.process_group import rank_and_world_size
from nnunetv2.errors import UsageError
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

RESULT = "benchmark_result.json"
_FAILED = "Training has ended due to an error. Check your logs for more information."  # users' scripts search for it
_CUDA = torch.device("cuda")


class nnUNetTrainerBenchmark_5epochs(nnUNetTrainer):
    """Writes the duration of the fastest epoch in seconds to benchmark_result.json of the fold.

    The file has one entry per machine and GPU. There are no checkpoints and no final validation. A failed training
    records the failure.
    """

    num_epochs = 5

    def __init__(
        self, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device = _CUDA
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if fold != 0:
            raise UsageError(f"{type(self).__name__} measures time, which no split changes; train fold 0, not {fold}")
        self.disable_checkpointing = True
        self.crashed_with_runtime_error = False

    def save_checkpoint(self, filename: str) -> None:
        """Does nothing; needed because the training command overwrites `disable_checkpointing` by its flag."""

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Does nothing."""

    def run_training(self) -> None:
        try:
            super().run_training()
        except RuntimeError:
            self.crashed_with_runtime_error = True
            self._write_result()
            raise

    def on_train_end(self) -> None:
        super().on_train_end()
        self._write_result()

    def _write_result(self) -> None:
        if self.local_rank != 0:
            return
        entry = describe_machine(self.device)
        key = "__".join(
            [
                entry["hostname"],
                str(entry["cudnn_version"]),
                *(entry[name].replace(" ", "") for name in ("torch_version", "gpu_name")),
                f"num_gpus_{entry['num_gpus']}",
            ]
        )
        fastest = _FAILED if self.crashed_with_runtime_error else self._seconds_of_fastest_epoch()
        path = Path(self.output_folder) / RESULT
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json({**(read_json(path) if path.is_file() else {}), key: {**entry, "fastest_epoch": fastest}}, path)

    def _seconds_of_fastest_epoch(self) -> float:
        starts, ends = (self.logger.get_value(f"epoch_{moment}_timestamps", step=None) for moment in ("start", "end"))
        return min(end - start for start, end in zip(starts, ends, strict=True))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describes the machine that was measured; without a GPU, `gpu_name` is the processor's name."""
    on_gpu = device.type == "cuda"
    return {
        "torch_version": torch.__version__,
        "cudnn_version": torch.backends.cudnn.version(),
        "gpu_name": torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine(),
        "num_gpus": rank_and_world_size()[1],
        "hostname": platform.node(),
    }
