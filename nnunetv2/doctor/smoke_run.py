"""A small experiment in a temporary folder: plan, preprocess, train a U-Net and a vision transformer, predict.

`python -m nnunetv2.doctor.smoke_run DEVICE` does the experiment in the folders that the environment names.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nnunetv2.doctor.finding import Finding, error, ok

NUMBER, DATASET = "999", "Dataset999_Doctor"
_CASES, _SIZE = 5, 64
_LONGEST = 900  # seconds
_FEW_PROCESSES = {"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}
_VIT = ("model.head=linear", "model.backbone=dinov2", "model.backbone_size=tiny", "model.pretrained=false")
_LENGTH = 2  # iterations of a training


def smoke_run(device: str) -> Finding:
    """Runs the experiment on a device, `cpu` or `cuda`, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="nnUNet_doctor_") as folder:
        roots = {f"nnUNet_{name}": str(Path(folder) / name) for name in ("raw", "preprocessed", "results")}
        environment = {**_FEW_PROCESSES, **os.environ, **roots}
        for variable in ("nnUNet_extTrainer", "nnUNet_extensions"):
            environment.pop(variable, None)
        start = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, "-m", "nnunetv2.doctor.smoke_run", device],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired:
            cure = "set nnUNet_n_proc_DA=0 and try again: workers that hang often lack shared memory"
            return error("smoke run", f"did not end within {_LONGEST} s on {device}", cure)
    if done.returncode == 0:
        return ok(
            "smoke run", f"planned, trained two models and predicted on {device} in {time.monotonic() - start:.0f} s"
        )
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    reason = lines[-1][:300] if lines else f"exit code {done.returncode}"
    return error(
        "smoke run", f"failed on {device} ({reason})", "cure the findings above first, then run the doctor again"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The experiment; returns the exit code of the first command that fails."""
    (device,) = sys.argv[1:] if argv is None else argv
    write_dataset(Path(os.environ["nnUNet_raw"]) / DATASET)
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        Path(os.environ[variable]).mkdir(parents=True, exist_ok=True)
    for step in _steps(device):
        if code := step():
            return code
    return 0


def _steps(device: str) -> Iterator[Callable[[], int]]:
    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry
    from nnunetv2.inference.predict_entry_points import predict_entry_point
    from nnunetv2.run.run_training import run_training_entry
    from nnunetv2.run.run_training_vit import run_training_entry as run_vit_training_entry

    raw = Path(os.environ["nnUNet_raw"]) / DATASET
    images, output = str(raw / "imagesTr"), str(raw.parent / "predicted")
    length = [str(_LENGTH)]
    planning = ["-d", NUMBER, "-c", "2d", "-npfp", "1", "-np", "1", "--verify_dataset_integrity", "--no_pbar"]
    yield lambda: plan_and_preprocess_entry(planning)
    training = [NUMBER, "2d", "0", "-device", device]
    flags = ["--num_epochs", "1", "--num_iterations_per_epoch", *length, "--num_val_iterations_per_epoch", "1"]
    yield lambda: run_training_entry([*training, *flags])
    settings = ["training.num_epochs=1", f"training.num_iterations_per_epoch={_LENGTH}", "model.tuning=full"]
    settings += ["training.num_val_iterations_per_epoch=1", *_VIT]
    yield lambda: run_vit_training_entry([*training, *settings])
    for trainer in ("nnUNetTrainer", "nnUNetTrainer_vit"):
        words = ["-i", images, "-o", f"{output}_{trainer}", "-d", NUMBER, "-c", "2d", "-f", "0", "-tr", trainer]
        yield lambda words=words: predict_entry_point([*words, "-device", device, "-npp", "1", "-nps", "1"])


def write_dataset(folder: Path) -> None:
    """Writes five grey images with one bright square each, and their labels."""
    import numpy as np
    from PIL import Image

    from dinov3.utils.atomic_files import write_json

    generator = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(_CASES):
        label = np.zeros((_SIZE, _SIZE), np.uint8)
        label[8 + 4 * number : 32 + 4 * number, 16:40] = 1
        image = (label * 100 + generator.integers(50, 100, label.shape)).astype(np.uint8)
        Image.fromarray(image).save(folder / "imagesTr" / f"case_{number}_0000.png")
        Image.fromarray(label).save(folder / "labelsTr" / f"case_{number}.png")
    content = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "square": 1}}
    write_json({**content, "numTraining": _CASES, "file_ending": ".png"}, folder / "dataset.json")


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        code = main()
    sys.exit(code)
