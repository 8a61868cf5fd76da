"""docs/extending.md: each section works as written, with its files in a folder outside the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dinov3.utils.atomic_files import read_json
from tests.conftest import REPOSITORY
from tests.docs.walkthrough import Block, Reader, blocks_of
from tests.training.tiny_dataset import NAME, write_tiny_dataset

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

DOCUMENT = "extending.md"
INTRODUCTION = blocks_of(DOCUMENT)[:1]
ARRAYS = "Dataset072_Arrays"

LOAD_WEIGHTS = """
from pathlib import Path
import torch
from nnunetv2.model.weights.backbone_weights import load_backbone_weights
from nnunetv2.model.backbones import create_backbone

saved, filled = create_backbone("sine_vit", "tiny"), create_backbone("sine_vit", "tiny")
torch.save({"teacher": saved.vit.state_dict()}, "weights.pth")
load_backbone_weights(filled, Path("weights.pth"))
image = torch.randn(1, 3, 32, 48)
torch.testing.assert_close(filled.features(image, [1, 3]).maps, saved.features(image, [1, 3]).maps, rtol=0, atol=0)
"""


@pytest.fixture
def reader(tmp_path: Path, nnunet_folders: dict[str, Path], commands: Path) -> Reader:
    """Somebody who has read the introduction, with the tiny dataset."""
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    found = Reader(tmp_path / "reader", {"DATASET=71": "DATASET=777"}, socket=commands)
    found.follow(INTRODUCTION)
    return found


def follow(reader: Reader, section: str, printed: dict[str, str]) -> None:
    """Follows a section; `printed` has a part of the commands and of what they print."""

    def check(block: Block, output: str) -> None:
        for command, expected in printed.items():
            if command in block.text:
                assert expected in output, output

    reader.follow(blocks_of(DOCUMENT, section), check)


def run_contract(reader: Reader, test: str, name: str, number: int) -> None:
    """Runs the tests of the repository that hold what is registered to a contract."""
    reader.run(f"cd {REPOSITORY} && python -m pytest -q -p no:cacheprovider {test} -k '{name}'")
    assert re.search(rf"^{number} passed", reader.output, flags=re.MULTILINE), reader.output


def test_a_backbone(reader: Reader, nnunet_folders: dict[str, Path]) -> None:
    printed = {"--print_config": "backbone: augreg", "sine_vit": "Mean Validation Dice"}
    follow(reader, "A backbone of your own", printed)
    plans = nnunet_folders["nnUNet_results"] / NAME / "nnUNetTrainer_vit__nnUNetPlans__2d" / "plans.json"
    arguments = read_json(plans)["configurations"]["2d"]["architecture"]["arch_kwargs"]
    assert (arguments["backbone"], arguments["backbone_size"]) == ("augreg", "tiny")
    (reader.folder / "load_weights.py").write_text(LOAD_WEIGHTS)
    reader.run("python load_weights.py")
    run_contract(reader, "tests/model/test_backbone_families.py", "a_size_is_built and (augreg or sine_vit)", 3)


def test_a_loss(reader: Reader) -> None:
    follow(reader, "A loss of your own", {"--print_config": "gamma: 1.5", "--fast_dev_run": "Fast dev run passed"})
    run_contract(reader, "tests/training/loss/test_named_losses.py", "focal", 7)


def test_a_reader(reader: Reader, nnunet_folders: dict[str, Path]) -> None:
    folder = nnunet_folders["nnUNet_raw"] / ARRAYS
    generator = np.random.default_rng(3)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in range(5):
        labels = np.zeros((40, 36), dtype=np.uint8)
        labels[8 + case : 24, 6:20] = 1
        np.save(folder / "labelsTr" / f"case{case}.npy", labels)
        np.save(folder / "imagesTr" / f"case{case}_0000.npy", labels + generator.normal(0, 0.1, labels.shape))
    content = {"channel_names": {"0": "x"}, "labels": {"background": 0, "it": 1}, "numTraining": 5}
    (folder / "dataset.json").write_text(json.dumps({**content, "file_ending": ".npy"}))
    follow(reader, "A reader of your own", {})
    plans = read_json(nnunet_folders["nnUNet_preprocessed"] / ARRAYS / "nnUNetPlans.json")
    assert plans["image_reader_writer"] == "ArrayIO"
    model = nnunet_folders["nnUNet_results"] / ARRAYS / "nnUNetTrainer__nnUNetPlans__2d"
    assert list((model / "fold_0" / "validation").glob("case*.npy"))
    assert np.load(reader.folder / "arrays" / "case0.npy").shape == (40, 36)
    assert 0 <= read_json(reader.folder / "arrays" / "summary.json")["foreground_mean"]["Dice"] <= 1
    assert not (reader.folder / "none" / "case0.npy").exists()
