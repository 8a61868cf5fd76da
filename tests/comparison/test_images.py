"""Images for the pictures of a report."""

from __future__ import annotations

import json

from nnunetv2.comparison.images import image_files
from tests.comparison.model_folders import DATASET, DATASET_JSON


def test_images_are_found_by_case_and_channel_and_can_do_without(nnunet_folders, caplog):
    folder = nnunet_folders["nnUNet_raw"] / DATASET
    assert image_files(DATASET) == {}
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({**DATASET_JSON, "channel_names": {"0": "red", "1": "green"}}))
    assert image_files(DATASET) == {}
    assert "shown without their images: There is no folder" in caplog.text
    for name in ("imagesTr/a_0000.png", "imagesTr/a_0001.png", "labelsTr/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert image_files(DATASET) == {"a": tuple(folder / "imagesTr" / f"a_000{channel}.png" for channel in (0, 1))}
