"""docs/new_head.md: its file is a head with which every command works, without an edit in the repository."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import io

from dinov3.utils.atomic_files import read_json
from tests.conftest import REPOSITORY
from tests.docs.walkthrough import Block, Reader, blocks_of
from tests.training.tiny_dataset import NAME, SIZE, write_tiny_dataset

pytestmark = pytest.mark.integration

BLOCKS = blocks_of("new_head.md")
MODEL = Path(NAME, "nnUNetTrainer_vit__nnUNetPlans__2d")
EXPECTED = {  # a part of each block of commands, and of what it prints
    "train_vit -h": "two_layers        Two convolutions on four concatenated maps",
    "--print_config": "hidden_channels: 32",
    "--fast_dev_run": "Fast dev run passed",
    "--c training.num_epochs=4": "Epoch 3",
    "nnUNetv2_study": "two_layers",
}


def reader_with_dataset(folder: Path, folders: dict[str, Path], commands: Path) -> Reader:
    """A reader with the tiny dataset and two images to predict."""
    write_tiny_dataset(folders["nnUNet_preprocessed"])
    reader = Reader(folder, {"DATASET=71": "DATASET=777", "dataset: 71": "dataset: 777"}, socket=commands)
    (folder / "images").mkdir()
    for number in (1, 2):
        image = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE + number), dtype=np.uint8)
        io.imsave(str(folder / "images" / f"new{number}_0000.png"), image, check_contrast=False)
    return reader


@pytest.mark.timeout(1500)
def test_every_step_works_as_written(tmp_path: Path, nnunet_folders: dict[str, Path], commands: Path) -> None:
    folder = tmp_path / "reader"
    reader = reader_with_dataset(folder, nnunet_folders, commands)
    printed: list[str] = []

    def check(block: Block, output: str) -> None:
        printed.append(output)
        for command, expected in EXPECTED.items():
            if command in block.text:
                assert expected in output, output

    reader.follow(BLOCKS, check)
    results = nnunet_folders["nnUNet_results"] / MODEL
    assert "two_layers" in (results / "fold_0" / "config.yaml").read_text()
    head = read_json(results / "plans.json")["configurations"]["2d"]["architecture"]["arch_kwargs"]["head"]
    assert (head["name"], head["settings"], head["file"]) == ("two_layers", {"hidden_channels": 64}, "two_layers.py")
    assert (results / "fold_0" / "validation" / "summary.json").is_file()
    for name in ("new1.png", "new2.png"):
        here, elsewhere = (io.imread(folder / place / name) for place in ("predictions", "again"))
        assert np.array_equal(here, elsewhere)
        assert here.shape == io.imread(folder / "images" / name.replace(".png", "_0000.png")).shape
    assert not (folder / "none" / "new1.png").exists()
    assert (folder / "comparison").is_dir()
    assert (folder / "study" / "comparison").is_dir()
    assert "two_layers" in (folder / "all_settings.yaml").read_text()
    reader.run("python -m pytest -q -p no:cacheprovider test_two_layers.py")


def test_the_contract_of_heads_takes_it_in(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "reader")
    reader.follow([block for block in BLOCKS if block.file == "heads/two_layers.py"])
    command = [sys.executable, "-m", "pytest", "-q", "tests/model/heads/test_contract.py", "-k", "two_layers"]
    environment = reader.environment | {"nnUNet_extensions": str(reader.folder / "heads")}
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "18 passed" in result.stdout
