"""Vision transformers on volumes by commands alone: trained, continued, predicted, exported and installed elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from dinov3.utils.atomic_files import read_json, write_json
from tests.model.heads.small import small_words

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

DATASET, SHAPE, SPACING = "Dataset778_Volumes", (5, 40, 36), (3.0, 1.0, 1.0)
CASES = [f"case_{number}" for number in range(5)]
NEW = "new"
TRAINER = "nnUNetTrainer_vit__nnUNetPlans__"


def write_volume(path: Path, array: np.ndarray) -> None:
    """Stores the slices along the last axis of the file's array, where readers find the first axis of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.transpose(1, 2, 0))
    image.SetSpacing(SPACING)  # of the axes x, y, z, which are the array's last, second and first
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(nnunet_folders: dict[str, Path]) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    raw = nnunet_folders["nnUNet_raw"] / DATASET
    for name in (*CASES, NEW):
        labels = np.zeros(SHAPE, dtype=np.uint8)
        labels[1:4, 8:24, 5:15], labels[2:, 20:34, 18:30] = 1, 2
        image = (labels + rng.normal(0, 0.3, SHAPE)).astype(np.float32)
        is_new = name == NEW
        write_volume(raw / ("imagesTs" if is_new else "imagesTr") / f"{name}_0000.nii.gz", image)
        if not is_new:
            write_volume(raw / "labelsTr" / f"{name}.nii.gz", labels)
    write_json(
        {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "left": 1, "right": 2},
            "numTraining": len(CASES),
            "file_ending": ".nii.gz",
        },
        raw / "dataset.json",
    )
    return nnunet_folders


def run(command: str, *words: str, results: Path | None = None) -> str:
    program = Path(sys.executable).parent / command
    environment = os.environ | {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0"}
    if results is not None:
        environment["nnUNet_results"] = str(results)
    done = subprocess.run([program, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def predict(configuration: str, images: Path, output: Path, results: Path) -> np.ndarray:
    words = ["-i", str(images), "-o", str(output), "-d", "778", "-c", configuration, "-f", "0", "-tr"]
    run("nnUNetv2_predict", *words, "nnUNetTrainer_vit", "-device", "cpu", "-npp", "0", "-nps", "0", results=results)
    image = sitk.ReadImage(str(output / f"{NEW}.nii.gz"))
    assert image.GetSpacing() == pytest.approx(SPACING)
    return sitk.GetArrayFromImage(image)


@pytest.mark.parametrize(
    ("configuration", "head", "words", "remembered", "note"),
    [
        ("3d_fullres", "eomt", [], {"slice_input": "neighbours", "fusion": "conv"}, "Slices lie along axis"),
        ("2d", "segformer", ["model.context_slices=5"], {"context_slices": 5}, "Epoch 0"),
    ],
)
def test_a_model_of_volumes_is_trained_continued_and_used_elsewhere(
    folders: dict[str, Path],
    tmp_path: Path,
    configuration: str,
    head: str,
    words: list[str],
    remembered: dict[str, object],
    note: str,
) -> None:
    run("nnUNetv2_plan_and_preprocess", "-d", "778", "-c", configuration, "-np", "1")
    train = ["778", configuration, "0", "-device", "cpu"]
    lengths = ["training.num_iterations_per_epoch=2", "training.num_val_iterations_per_epoch=1", "training.lr=1e-3"]
    run("nnUNetv2_train_vit", *train, *small_words(head, tuning="lora"), *words, *lengths, "training.num_epochs=1")
    output = run("nnUNetv2_train_vit", *train, "--c", "training.num_epochs=2")
    assert "Epoch 1" in output
    results = folders["nnUNet_results"]
    model = results / DATASET / f"{TRAINER}{configuration}"
    assert read_json(model / "fold_0" / "validation" / "summary.json")["metric_per_case"]
    arguments = read_json(model / "plans.json")["configurations"][configuration]["architecture"]["arch_kwargs"]
    assert remembered.items() <= arguments.items()
    assert note in next((model / "fold_0").glob("training_log_*.txt")).read_text()

    images = folders["nnUNet_raw"] / DATASET / "imagesTs"
    labels = predict(configuration, images, tmp_path / "here", results)
    assert labels.shape == (SHAPE[1], SHAPE[2], SHAPE[0])  # as the file of the image
    archive, elsewhere = tmp_path / "model.zip", tmp_path / "elsewhere"
    exported = ["-d", "778", "-o", str(archive), "-tr", "nnUNetTrainer_vit", "-c", configuration, "-f", "0"]
    run("nnUNetv2_export_model_to_zip", *exported, "--not_strict")
    elsewhere.mkdir()
    run("nnUNetv2_install_pretrained_model_from_zip", str(archive), results=elsewhere)
    np.testing.assert_array_equal(predict(configuration, images, tmp_path / "there", elsewhere), labels)
