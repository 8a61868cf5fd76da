"""Runs the demonstration: `python -m demo [--output FOLDER]`. `make demo` installs everything first."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from demo.baselines import random_forest_segmentation, threshold_segmentation
from demo.overlays import write_overlay
from demo.scratch_assay import DATASET, LABELS, convert, find_recording
from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import NNUNetError
from nnunetv2.utilities.command_line import command

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "nnunetv2" / "configs" / "m2f_demo.yaml"
DATASET_ID, CONFIGURATION, FOLD = "71", "2d", "0"
CLASSES = {name: label for name, label in LABELS.items() if label > 0}


@dataclass(frozen=True)
class HeldOut:
    """The validation cases of the fold: (2, H, W) images and (H, W) labels by case id, never seen in training."""

    frames: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


class StepFailed(NNUNetError):
    """A command of the demonstration ended with a non-zero exit code."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "demo_output", help="folder for all results")
    output: Path = parser.parse_args(argv).output.resolve()
    started = time.monotonic()

    environment = _environment(output)
    say("Convert the scratch-assay recording into a raw nnU-Net dataset")
    raw_dataset = convert(find_recording(), Path(environment["nnUNet_raw"]))
    run = _runner(environment)
    run("Plan and preprocess", "nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", CONFIGURATION, "-np", "1",
        "-npfp", "1", "--verify_dataset_integrity")  # fmt: skip
    run("Train Mask2Former on a small vision transformer, from scratch (no pretrained weights are needed or fetched)",
        REPOSITORY / "nnUNetv2_train_m2f.py", DATASET_ID, CONFIGURATION, FOLD, "--m2f_config", CONFIG,
        "-device", _device())  # fmt: skip
    held_out_folder = _collect_held_out(raw_dataset, Path(environment["nnUNet_preprocessed"]), output / "held_out")
    predictions = output / "predictions"
    run("Predict the held-out frames", "nnUNetv2_predict", "-i", held_out_folder / "images", "-o", predictions,
        "-d", DATASET_ID, "-tr", "nnUNetTrainer_m2f", "-c", CONFIGURATION, "-f", FOLD, "-device", _device(),
        "-npp", "0", "-nps", "0")  # fmt: skip
    run("Score them", "nnUNetv2_evaluate_folder", held_out_folder / "labels", predictions,
        "-djfile", predictions / "dataset.json", "-pfile", predictions / "plans.json", "-np", "1")  # fmt: skip

    say("Compare with two simple baselines on the same frames")
    held_out = _load(held_out_folder)
    table = {"Mask2Former": _dice_of_summary(predictions / "summary.json"), **_score_baselines(raw_dataset, held_out)}
    _write_overlays(held_out, predictions, output / "overlays")
    _print_table(table, held_out)
    print(f"\nOverlays:    {output / 'overlays'}\nPredictions: {predictions}")
    print(f"Done in {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0


def say(message: str) -> None:
    print(f"\n=== {message}", flush=True)


def _environment(output: Path) -> dict[str, str]:
    """Process environment with nnU-Net's three roots below `output`, which is emptied first."""
    for name in ("raw", "preprocessed", "results", "held_out", "predictions", "overlays"):
        shutil.rmtree(output / name, ignore_errors=True)
    environment = dict(os.environ)
    for name in ("raw", "preprocessed", "results"):
        (output / name).mkdir(parents=True)
        environment[f"nnUNet_{name}"] = str(output / name)
    environment["nnUNet_n_proc_DA"] = "0"  # on two cores, a second process would only compete with the first
    environment.setdefault("OMP_NUM_THREADS", str(min(os.cpu_count() or 1, 8)))
    return environment


def _runner(environment: dict[str, str]) -> Callable[..., None]:
    """Returns `run(message, command, *arguments)`, which prints a command, runs it, and raises if it fails."""

    def run(message: str, program: str | Path, *arguments: str | Path) -> None:
        say(message)
        words = [str(word) for word in (program, *arguments)]
        print("$ " + " ".join(["python", *words] if isinstance(program, Path) else words), flush=True)
        start = [sys.executable] if isinstance(program, Path) else []
        if not isinstance(program, Path):
            words[0] = str(Path(sys.executable).parent / words[0])
        code = subprocess.run([*start, *words], env=environment, check=False).returncode
        if code:
            raise StepFailed(f"The step '{message}' failed: {Path(words[0]).name} ended with exit code {code}")

    return run


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _collect_held_out(raw_dataset: Path, preprocessed: Path, target: Path) -> Path:
    """Copies images and labels of the fold's validation cases, so that they can be predicted as new data."""
    cases = read_json(preprocessed / DATASET / "splits_final.json")[int(FOLD)]["val"]
    for source, name in ((raw_dataset / "imagesTr", "images"), (raw_dataset / "labelsTr", "labels")):
        (target / name).mkdir(parents=True)
        for case in cases:
            for file in sorted(source.glob(f"{case}*")):
                shutil.copy(file, target / name)
    return target


def _load(folder: Path) -> HeldOut:
    return HeldOut(
        frames={path.name[: -len("_0000.nii.gz")]: _read_frame(path) for path in sorted(folder.glob("images/*_0000*"))},
        labels={path.name[: -len(".nii.gz")]: _read(path) for path in sorted(folder.glob("labels/*"))},
    )


def _read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]


def _read_frame(first_channel: Path) -> np.ndarray:
    second_channel = first_channel.with_name(first_channel.name.replace("_0000", "_0001"))
    return np.stack([_read(first_channel), _read(second_channel)])


def _dice_of_summary(summary: Path) -> dict[str, float]:
    mean = read_json(summary)["mean"]
    return {name: mean[str(label)]["Dice"] for name, label in CLASSES.items()}


def _score_baselines(raw_dataset: Path, held_out: HeldOut) -> dict[str, dict[str, float]]:
    """Mean Dice per class of both baselines on the held-out frames; the forest is trained on the training frames."""
    first_channels = sorted(raw_dataset.glob("imagesTr/*_0000.nii.gz"))
    training = [path for path in first_channels if path.name[: -len("_0000.nii.gz")] not in held_out.frames]
    labels = [_read(raw_dataset / "labelsTr" / path.name.replace("_0000", "")) for path in training]
    frames = list(held_out.frames.values())
    forest = random_forest_segmentation([_read_frame(path) for path in training], labels, frames)
    predictions = {"random forest": forest, "thresholds": [threshold_segmentation(frame) for frame in frames]}
    references = list(held_out.labels.values())
    return {
        method: {
            name: float(np.mean([dice(p == label, r == label) for p, r in zip(maps, references, strict=True)]))
            for name, label in CLASSES.items()
        }
        for method, maps in predictions.items()
    }


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Dice of two boolean masks; NaN if both are empty, as in nnU-Net's summary."""
    total = prediction.sum() + reference.sum()
    return float(2 * (prediction & reference).sum() / total) if total else float("nan")


def _write_overlays(held_out: HeldOut, predictions: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for case, frame in held_out.frames.items():
        prediction = _read(predictions / f"{case}.nii.gz")
        write_overlay(frame, held_out.labels[case], prediction, case, target / f"{case}.png")


def _print_table(table: dict[str, dict[str, float]], held_out: HeldOut) -> None:
    say(f"Dice on {len(held_out.frames)} frames that were not trained on ({', '.join(held_out.frames)})")
    print(f"{'method':<15}" + "".join(f"{name:>12}" for name in CLASSES))
    for method, scores in table.items():
        print(f"{method:<15}" + "".join(f"{scores[name]:>12.3f}" for name in CLASSES))


if __name__ == "__main__":
    sys.exit(main())
