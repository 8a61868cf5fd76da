"""Runs a client written for upstream, `nnunetv2-cam` (class activation maps), on a model trained with this project.

    pip install nnunetv2-cam
    python benchmarks/cam_client.py MODEL_FOLDER IMAGES OUTPUT [--fold 0] [--layer encoder.stages.1.0.convs.0]
        [--target_class 1] [--cam_type 3d] [--same_as OTHER_OUTPUT]

Runs the client's command and Python interface and checks that the maps have the size of the images, are finite and not
constant. With the interpreter of an upstream environment, it does the same there; `--same_as` compares the maps of
both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import torch
from nnunetv2_cam.api import run_cam_for_prediction

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

LARGEST_DIFFERENCE = 1e-4  # of maps between 0 and 1


def run_command(args: argparse.Namespace) -> int:
    """The client's console command; returns the number of slices it drew."""
    words = ["-i", args.images, "-o", args.output / "command", "-m", args.model, "-f", args.fold, "-device", "cpu"]
    words += ["--target-layer", args.layer, "--target-class", args.target_class, "--cam-type", args.cam_type]
    program = "import sys; from nnunetv2_cam.cli import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", program, *map(str, words), "--disable-tta"], check=True)
    return len(list((args.output / "command").rglob("*.png")))


def run_interface(args: argparse.Namespace) -> list[np.ndarray]:
    """Computes the maps of all images, (1, Z, Y, X) each, with a predictor created as in the client's documentation."""
    device = torch.device("cpu")
    predictor = nnUNetPredictor(use_mirroring=False, device=device, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(args.model), (args.fold,), "checkpoint_final.pth")
    return run_cam_for_prediction(
        predictor=predictor,
        input_files=str(args.images),
        output_folder=str(args.output / "interface"),
        target_layer=[args.layer],
        target_class=args.target_class,
        cam_type=args.cam_type,
        device=device,
        save_slices=False,
    )


def check_map(heatmap: np.ndarray, image: Path) -> None:
    expected = nibabel.load(image).shape[::-1]
    if heatmap.shape[1:] != expected:
        sys.exit(f"{image.name}: the map has the shape {heatmap.shape[1:]}, the image {expected}")
    if not np.isfinite(heatmap).all() or heatmap.min() == heatmap.max():
        sys.exit(f"{image.name}: the map is constant or not finite")
    print(
        f"{image.name}: map {heatmap.shape[1:]}, {heatmap.min():.4f} to {heatmap.max():.4f}, mean {heatmap.mean():.4f}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a trained model, TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("images", type=Path, help="folder of .nii.gz images with one channel")
    parser.add_argument("output", type=Path)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--layer", default="encoder.stages.1.0.convs.0")
    parser.add_argument("--target_class", type=int, default=1)
    parser.add_argument("--cam_type", choices=("2d", "3d"), default="3d")
    parser.add_argument("--same_as", type=Path, default=None, help="output of another run to compare with")
    args = parser.parse_args(argv)
    print(f"nnunetv2-cam {version('nnunetv2-cam')} on nnunetv2 {version('nnunetv2')}")
    print(f"command: {run_command(args)} slices drawn")
    maps = run_interface(args)
    images = sorted(args.images.glob("*_0000.nii.gz"))
    for heatmap, image in zip(maps, images, strict=True):
        check_map(heatmap, image)
        np.save(args.output / f"{image.name}.npy", heatmap)
    for image in images if args.same_as else ():
        first, second = (np.load(folder / f"{image.name}.npy") for folder in (args.same_as, args.output))
        difference = float(np.abs(first - second).max())
        print(f"{image.name}: largest difference to {args.same_as}: {difference:.2e}")
        if difference > LARGEST_DIFFERENCE:
            sys.exit("the maps differ")


if __name__ == "__main__":
    main()
