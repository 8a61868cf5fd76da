"""Records upstream's ensembles of the predictions in `ensemble_cases.py`.

Recorded with upstream 2.8.1:  UPSTREAM/bin/python tests/recorded/make_ensembles.py

`ensembles.npz` holds for labels and regions, ensembles of folders and of cross-validations, the segmentation and, for
folders, the probabilities of each case.
"""

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from ensemble_cases import CASES, LABELS, write_crossvalidation, write_predictions

from nnunetv2.ensembling.ensemble import ensemble_crossvalidations, ensemble_folders


def main():
    recorded = {}
    for kind in LABELS:
        with tempfile.TemporaryDirectory() as root:
            root = Path(root)
            folders = [str(write_predictions(root / f"model_{model}", kind, model)) for model in range(3)]
            ensemble_folders(folders, str(root / "out"), True, 1)
            splits = [{0: CASES[:1], 1: CASES[1:]}, {0: CASES[1:], 1: CASES[:1]}]
            models = [
                str(write_crossvalidation(root / f"cv_{model}", kind, model, split))
                for model, split in enumerate(splits)
            ]
            ensemble_crossvalidations(models, str(root / "cv_out"), (0, 1), 1)
            for case in CASES:
                with np.load(root / "out" / f"{case}.npz") as content:
                    recorded[f"{kind}_{case}_probabilities"] = content["probabilities"]
                for name in ("out", "cv_out"):
                    image = sitk.ReadImage(str(root / name / f"{case}.nii.gz"))
                    recorded[f"{kind}_{case}_{name}"] = sitk.GetArrayFromImage(image)
            print(
                kind,
                sorted(path.name for path in (root / "out").iterdir()),
                sorted(p.name for p in (root / "cv_out").iterdir()),
            )
    np.savez_compressed(Path(__file__).parent / "ensembles.npz", **recorded)


if __name__ == "__main__":
    main()
