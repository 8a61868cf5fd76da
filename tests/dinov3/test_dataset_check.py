"""The checker of datasets: what it counts, and which file it names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dinov3.eval.segmentation import dataset_check
from dinov3.eval.segmentation.data.dataset import make_dataset
from dinov3.eval.segmentation.data.labels import labels_in_range
from dinov3.eval.segmentation.dataset_check import check_dataset
from dinov3.utils.errors import DataError, UsageError
from tests.dinov3.png_folder import add_sample, save_pixels
from tests.dinov3.scratch_assay_folder import NUM_CLASSES, make_scratch_assay_folder

TRAIN = "ADE20K:split=TRAIN"


def folder_of(root: Path, *labels: list[list[int]]) -> Path:
    for index, label in enumerate(labels):
        mask = np.array(label, dtype=np.uint8)
        save_pixels(root / f"images/training/{index}.png", np.zeros((*mask.shape, 3), dtype=np.uint8))
        save_pixels(root / f"annotations/training/{index}.png", mask)
    return root


def test_pixels_and_images_of_each_class_are_counted(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [[0, 0, 1]], [[1, 255], [3, 1]])
    summary = check_dataset(make_dataset(TRAIN, root), num_classes=4)
    assert summary.num_images == 2
    assert summary.height_range == (1, 2)
    assert summary.width_range == (2, 3)
    assert summary.pixels_per_class == (2, 3, 0, 1)
    assert summary.images_per_class == (1, 2, 0, 1)
    assert summary.num_ignored_pixels == 1
    assert summary.absent_classes == [2]


def test_masks_of_0_and_255_are_noticed(tmp_path: Path) -> None:
    summary = check_dataset(make_dataset(TRAIN, folder_of(tmp_path, [[0, 255], [255, 0]])), num_classes=2)
    assert "masks of 0 and 255 have to be written as 0 and 1" in summary.lines()[-1]
    fine = check_dataset(make_dataset(TRAIN, folder_of(tmp_path / "fine", [[0, 1], [255, 0]])), num_classes=2)
    assert not any("warning" in line for line in fine.lines())


def test_classes_may_count_from_one(tmp_path: Path) -> None:
    root = folder_of(tmp_path, [[0, 0, 1]], [[1, 255], [3, 1]])
    summary = check_dataset(make_dataset(TRAIN, root), num_classes=3, reduce_zero_label=True)
    assert summary.pixels_per_class == (3, 0, 1)
    assert summary.num_ignored_pixels == 3


def test_the_first_wrong_file_in_the_order_of_the_dataset_is_named(tmp_path: Path) -> None:
    root = folder_of(tmp_path, *[[[0, 1]]] * 12)
    for name in (10, 9, 11):
        save_pixels(root / f"annotations/training/{name}.png", np.array([[0, 7]], dtype=np.uint8))
    with pytest.raises(DataError, match=r"annotations.training.9\.png holds the label 7"):
        check_dataset(make_dataset(TRAIN, root), num_classes=2)


def test_unequal_sizes_and_broken_files_are_found_too(tmp_path: Path) -> None:
    root = folder_of(tmp_path, *[[[0, 1]]] * 3)
    save_pixels(root / "annotations/training/2.png", np.zeros((5, 5), dtype=np.uint8))
    with pytest.raises(DataError, match=r"2\.png has 1 x 2 pixels .* but its mask .* has 5 x 5"):
        check_dataset(make_dataset(TRAIN, root), num_classes=2)
    (root / "images/training/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"images.training.1\.png cannot be read"):
        check_dataset(make_dataset(TRAIN, root), num_classes=2)


@pytest.mark.parametrize(
    ("labels", "num_classes", "reduce", "message"),
    [
        (
            [0, 3, 4],
            3,
            False,
            r"m\.png holds the labels 3, 4; with 3 classes the labels are 0 to 2, and 255 for ignored",
        ),
        ([0, 4], 3, True, r"the label 4; with 3 classes the labels are 1 to 3, and 0 and 255 for ignored pixels"),
        ([256], 255, False, r"the label 256; with 255 classes the labels are 0 to 254"),
        (list(range(20)), 2, False, r"the labels 2, 3, 4, 5, 6, 7, 8, 9, \.\.\.; with"),
    ],
)
def test_labels_out_of_range_are_listed_with_what_is_accepted(labels, num_classes, reduce, message) -> None:
    with pytest.raises(DataError, match=message):
        labels_in_range(torch.tensor([labels]), num_classes, "m.png", reduce_zero_label=reduce)


def test_every_class_and_the_ignored_labels_are_accepted() -> None:
    labels_in_range(torch.tensor([[0, 1, 2, 255]]), 3, "m.png")
    labels_in_range(torch.tensor([[0, 1, 2, 3, 255]]), 3, "m.png", reduce_zero_label=True)


@pytest.mark.parametrize(("num_classes", "reduce", "most"), [(256, False, 255), (255, True, 254), (0, False, 255)])
def test_a_number_of_classes_that_no_label_map_can_hold_is_refused(num_classes: int, reduce: bool, most: int) -> None:
    with pytest.raises(UsageError, match=rf"{num_classes} classes were given; label maps hold between 1 and {most}"):
        labels_in_range(torch.zeros(1, 1), num_classes, "m.png", reduce_zero_label=reduce)


# ---- the command

SETTINGS = ["decoder_head.num_classes=3", "eval.reduce_zero_label=false"]


def test_the_command_shows_both_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder_of(tmp_path, [[0, 0, 1], [255, 2, 2]])
    add_sample(tmp_path, "v", split="validation", size=(4, 5), label=1)
    words = [f"datasets.root={tmp_path}", f"datasets.train={TRAIN}", "datasets.val=ADE20K:split=VAL", *SETTINGS]
    with caplog.at_level("INFO"):
        assert dataset_check.main(words) == 0
    assert "datasets.train=ADE20K:split=TRAIN: 1 images, height 2 to 2, width 3 to 3 pixels, 16.67% of" in caplog.text
    assert "class 0: 33.33% of the pixels, in 1 images" in caplog.text
    assert "datasets.val=ADE20K:split=VAL: 1 images" in caplog.text
    assert "never occurs: 0, 2" in caplog.text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["datasets.train=Folder:split=bad"], 3, "b.png holds the label 9; with 3 classes"),
        (["datasets.train=Folder:split=none"], 2, "does not exist; check datasets.root"),
        (["datasets.train=", "datasets.val="], 2, "No dataset was given; set datasets.train or datasets.val"),
        ([], 2, "No dataset was given; set datasets.train or datasets.val"),
        (["datasets.trian=x"], 2, "datasets.train"),
    ],
)
def test_the_command_ends_with_one_line_for_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], code: int, message: str
) -> None:
    add_sample(tmp_path, "a", split="bad", label=1)
    add_sample(tmp_path, "b", split="bad", label=9)
    assert dataset_check.main([f"datasets.root={tmp_path}", *SETTINGS, *words]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_help_needs_no_heavy_package() -> None:
    code = (
        "import sys; from dinov3.eval.segmentation import dataset_check\n"
        "try: dataset_check.main(['-h'])\n"
        "except SystemExit: print([m for m in ('torch', 'numpy', 'PIL', 'omegaconf') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert "usage: python -m dinov3.eval.segmentation.dataset_check" in result.stdout
    assert result.stdout.rstrip().endswith("[]")


def test_the_scratch_assay_passes_and_holds_all_classes(tmp_path: Path, shared_folder: Path) -> None:
    root = make_scratch_assay_folder(shared_folder, tmp_path)
    summary = check_dataset(make_dataset(TRAIN, root), NUM_CLASSES)
    assert summary.num_images == 8
    assert summary.absent_classes == []
    assert sum(summary.pixels_per_class) == 8 * 210 * 576
