"""Prepares the preprocessed ScratchAssay for study_scratch_assay.yaml: smaller patches, and folds that use every frame.

The patch of the plans holds a whole frame, which takes three times as long on a CPU. With nnU-Net's five folds, two of
them would validate four frames: too few for any test. With two folds of five, all ten frames are compared.
"""

import json
import os
from pathlib import Path

FOLDER = Path(os.environ["nnUNet_preprocessed"]) / "Dataset071_ScratchAssay"

plans = json.loads((FOLDER / "nnUNetPlans.json").read_text())
plans["configurations"]["2d_crops"] = {"inherits_from": "2d", "patch_size": [224, 192]}
(FOLDER / "nnUNetPlans.json").write_text(json.dumps(plans, indent=4))

frames = [f"scratch_{number:03d}" for number in range(10)]
halves = frames[:5], frames[5:]  # frames that follow each other look alike, so they stay together
splits = [{"train": halves[0], "val": halves[1]}, {"train": halves[1], "val": halves[0]}]
(FOLDER / "splits_final.json").write_text(json.dumps(splits, indent=4))
