"""Extracts the trainer's hooks and the training command's flags from the recordings of upstream nnU-Net 2.8.1.

usage: python make_training_api.py RECORDED_FOLDER
"""

import json
import sys
from pathlib import Path

recorded, here = Path(sys.argv[1]), Path(__file__).parent
api = json.loads((recorded / "api.json").read_text())
hooks = api["nnunetv2.training.nnUNetTrainer.nnUNetTrainer"]["nnUNetTrainer"]["methods"]
variants = {
    module: sorted(classes)
    for module, classes in api.items()
    if module.startswith("nnunetv2.training.nnUNetTrainer.variants")
}
run = {module: api[module] for module in ("nnunetv2.run.run_training", "nnunetv2.run.load_pretrained_weights")}
flags = json.loads((recorded / "cli.json").read_text())["nnUNetv2_train"]["args"]
content = {"hooks": hooks, "run": run, "variants": variants, "flags": flags}
(here / "training_api.json").write_text(json.dumps(content, indent=1) + "\n")
