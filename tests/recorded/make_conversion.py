"""Records what upstream makes of the folders in `conversion_cases.py`.

Recorded with upstream 2.8.1:  UPSTREAM/bin/python tests/recorded/make_conversion.py

`conversion.json` describes every file of two converted tasks of the Decathlon (4-D and 3-D images) and of a dataset of
nnU-Net v1, and holds the text of the dataset.json that `generate_dataset_json` writes.
"""

import json
import os
import tempfile
from copy import deepcopy
from pathlib import Path

from conversion_cases import JSON_ARGUMENTS, describe_folder, write_msd_task, write_old_task

RAW = tempfile.TemporaryDirectory()
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ[variable] = RAW.name

from nnunetv2.dataset_conversion.convert_MSD_dataset import convert_msd_dataset  # noqa: E402
from nnunetv2.dataset_conversion.convert_raw_dataset_from_old_nnunet_format import convert  # noqa: E402
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json  # noqa: E402


def main():
    recorded = {"generate_dataset_json": {}}
    with tempfile.TemporaryDirectory() as sources:
        sources = Path(sources)
        convert_msd_dataset(str(write_msd_task(sources)), None, 1)
        convert_msd_dataset(str(write_msd_task(sources, "Task008_Flat", 1)), 123, 1)
        convert(str(write_old_task(sources)), "Dataset027_Hearts")
        for folder in Path(RAW.name).iterdir():
            recorded[folder.name] = describe_folder(folder)
        for name, arguments in JSON_ARGUMENTS.items():
            generate_dataset_json(str(sources), num_training_cases=3, file_ending=".nii.gz", **deepcopy(arguments))
            recorded["generate_dataset_json"][name] = (sources / "dataset.json").read_text()
    text = json.dumps(recorded, indent=1, sort_keys=True)
    (Path(__file__).parent / "conversion.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
