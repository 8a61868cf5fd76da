"""Records the files that upstream's `JHU_inference` writes for the logits in `single_file_cases.py`.

Recorded with upstream 2.8.1:  UPSTREAM/bin/python tests/recorded/make_single_files.py

`single_files.npz` holds the voxels of each file below the case's folder, and the probabilities.
"""

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from single_file_cases import DATASET_JSON, MODEL, PROPERTIES, logits

from nnunetv2.inference.JHU_inference import export_prediction_from_logits_singleFiles
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager


def main():
    plans = PlansManager(str(MODEL / "plans.json"))
    with tempfile.TemporaryDirectory() as root:
        export_prediction_from_logits_singleFiles(
            logits(),
            PROPERTIES,
            plans.get_configuration("3d_fullres"),
            plans,
            DATASET_JSON,
            f"{root}/case",
            save_probabilities=True,
        )
        print(sorted(str(path.relative_to(root)) for path in Path(root).rglob("*")))
        images = {str(path.relative_to(root)): sitk.ReadImage(path) for path in Path(root).rglob("*.nii.gz")}
        recorded = {name: sitk.GetArrayFromImage(image) for name, image in images.items()}
        with np.load(f"{root}/case.npz") as content:
            recorded["probabilities"] = content["probabilities"].astype(np.float16)
    np.savez_compressed(Path(__file__).parent / "single_files.npz", **recorded)


if __name__ == "__main__":
    main()
