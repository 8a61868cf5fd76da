"""Records the pictures that upstream draws of the datasets in `overlay_cases.py`.

Recorded with upstream 2.8.1:  UPSTREAM/bin/python tests/recorded/make_overlays.py

`overlays.npz` holds the pixels (H, W, 3) of each picture by call and case, and what `generate_overlay` returns.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from overlay_cases import (
    CASES,
    PREPROCESSED_CALLS,
    RAW_CALLS,
    VOLUMES,
    picture_arrays,
    preprocessed_arrays,
    write_plans,
    write_raw,
)
from skimage import io


def main():
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.utilities import overlay_plots

    raw, preprocessed = Path(os.environ["nnUNet_raw"]), Path(os.environ["nnUNet_preprocessed"])
    write_raw(raw)
    for folder in write_plans(preprocessed).values():
        for case in CASES:
            nnUNetDatasetBlosc2.save_case(
                *preprocessed_arrays(case), {}, str(folder / case), (1, 4, 4, 4), (1, 4, 4, 4)
            )
    recorded = {}
    for name, (image, labels, options) in picture_arrays().items():
        recorded[f"generate_overlay/{name}"] = overlay_plots.generate_overlay(image, labels, **options)
    with tempfile.TemporaryDirectory() as root:
        for name, (dataset, options) in RAW_CALLS.items():
            overlay_plots.generate_overlays_from_raw(dataset, os.path.join(root, name), 2, **options)
        for name, options in PREPROCESSED_CALLS.items():
            overlay_plots.generate_overlays_from_preprocessed(VOLUMES, os.path.join(root, name), 2, **options)
        for picture in sorted(Path(root).rglob("*.png")):
            recorded[f"{picture.parent.name}/{picture.stem}"] = io.imread(picture)[..., :3]
    np.savez_compressed(Path(__file__).parent / "overlays.npz", **recorded)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[variable] = os.path.join(folder, variable)
            os.mkdir(os.environ[variable])
        main()
