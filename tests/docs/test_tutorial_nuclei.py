"""docs/tutorial_nuclei.md and docs/retina.md: from a download to a report, on small pictures and with two steps."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.ndimage import binary_dilation, label

from dinov3.utils.atomic_files import read_json
from nnunetv2.model.backbones import create_backbone
from tests.docs.walkthrough import Block, Reader, blocks_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DOCUMENT = "tutorial_nuclei.md"
FUNDUS = "The same for fundus photographs"
NUM_CASES = 12  # three of them in fold 0, the fewest that the power of a study can be told from
SIDE = 64  # pixels
SHORT = {
    "--num_epochs 6 --num_iterations_per_epoch 50 --num_val_iterations_per_epoch 5": (
        "--num_epochs 1 --num_iterations_per_epoch 2 --num_val_iterations_per_epoch 1"
    ),
    "DEVICE=cuda": "DEVICE=cpu",
    "device: cuda": "device: cpu",
    "backbone_size: small": "backbone_size: tiny",
    "--verify_dataset_integrity": "--verify_dataset_integrity -npfp 1 -np 1",
    "-o comparison": "-o comparison --bootstrap 200 -np 1",
    'model.input_scale=4 "training.patch_size=[256,256]"': 'model.input_scale=2 "training.patch_size=[32,32]"',
}
MODEL = Path("Dataset018_Nuclei", "nnUNetTrainer_vit__nnUNetPlans__2d")


@pytest.fixture
def reader(tmp_path: Path, nnunet_folders: dict[str, Path], commands: Path) -> Reader:
    """Somebody with the weights of a miniature in the file that the tutorial names."""
    found = Reader(tmp_path / "reader", SHORT, socket=commands)
    torch.manual_seed(0)
    save_file(create_backbone("dinov2", "tiny").vit.state_dict(), found.folder / "dinov2_vits14.safetensors")
    return found


def write_download(folder: Path, shared: Path) -> None:
    """Crops of the shared dataset as the Data Science Bowl has them: RGBA, and a mask for each nucleus."""
    dataset = shared / "data" / "Dataset018_Nuclei"
    files = sorted((dataset / "labelsTr").glob("*.png"))
    if not files:
        pytest.skip(f"needs the pictures of {dataset}")
    crop = (slice(64, 64 + SIDE), slice(96, 96 + SIDE))
    chosen = [file for file in files if (np.asarray(Image.open(file))[crop] == 1).sum() > 200][:NUM_CASES]
    assert len(chosen) == NUM_CASES
    for file in chosen:
        labels = np.asarray(Image.open(file))[crop]
        picture = np.asarray(Image.open(dataset / "imagesTr" / f"{file.stem}_0000.png"))[crop]
        case = folder / "stage1_train" / file.stem
        for part in ("images", "masks"):
            (case / part).mkdir(parents=True)
        Image.fromarray(picture).convert("RGBA").save(case / "images" / file.name)
        nuclei, number = label(labels == 1)
        for nucleus in range(1, number + 1):
            whole = binary_dilation(nuclei == nucleus, iterations=2) & (labels > 0)
            Image.fromarray(whole).save(case / "masks" / f"{nucleus}.png")


def write_new_pictures(folder: Path) -> None:
    """JPEG files of other sizes, one of them grey."""
    (folder / "new").mkdir()
    generator = np.random.default_rng(4)
    for name, shape in {"first": (70, 80, 3), "second slide": (60, 90)}.items():
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "new" / f"{name}.jpg")


def rows(path: Path, **wanted: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if wanted.items() <= row.items()]


def test_every_step_works_as_written(reader: Reader, shared_folder: Path) -> None:
    folder = reader.folder
    write_download(folder, shared_folder)
    write_new_pictures(folder)
    expected = {
        "-m masks --dry_run": "--labels class1=128 class2=255",
        "border=255 --dry_run": "Dry run: ",
        "--preview 4": "Next: nnUNetv2_plan_and_preprocess -d 18",
        "model_info": "nnUNetTrainer_vit: SegFormerSegmentationModel",
        "--fast_dev_run": "Fast dev run passed",
        "for HEAD": "Backbone weights from",
        "evaluate_folder": "Mean ObjectF1",
        "nnUNetv2_compare": "mean Dice in nucleus of 3 methods",
        "--power": "trainings: 2 of unet, 1 of segformer, 1 of primus; 3 cases",
    }
    seen = set()

    def check(block: Block, output: str) -> None:
        for command, part in expected.items():
            if command in block.text:
                seen.add(command)
                assert part in output, output

    fundus = blocks_of(DOCUMENT, FUNDUS)
    reader.follow([block for block in blocks_of(DOCUMENT) if block not in fundus], check)
    assert seen == set(expected)
    check_dataset(folder / "raw" / "Dataset018_Nuclei")
    check_predictions(folder)
    check_scores(folder)
    assert (folder / "nuclei.zip").is_file()


def check_dataset(folder: Path) -> None:
    cases = sorted(path.stem for path in (folder / "labelsTr").glob("*.png"))
    assert len(cases) == NUM_CASES
    assert read_json(folder / "dataset.json")["labels"] == {"background": 0, "nucleus": 1, "border": 2}
    assert len(list((folder / "preview").glob("*.png"))) >= 4
    labels = [np.asarray(Image.open(folder / "labelsTr" / f"{case}.png")) for case in cases]
    assert set(np.unique(labels)) == {0, 1, 2}


def check_predictions(folder: Path) -> None:
    sizes = {"first.png": (80, 70), "second slide.png": (90, 60)}
    assert {path.name: Image.open(path).size for path in (folder / "predicted").glob("*.png")} == sizes


def check_scores(folder: Path) -> None:
    summary = read_json(folder / "segformer_objects.json")
    assert len(summary["metric_per_case"]) == 3
    validated = read_json(folder / "results" / "segformer" / MODEL / "fold_0" / "validation" / "summary.json")
    assert summary["mean"]["1"]["Dice"] == pytest.approx(validated["mean"]["1"]["Dice"], nan_ok=True)
    scores = rows(folder / "comparison" / "per_case.csv", metric="ObjectF1", **{"class": "nucleus"})
    assert {row["method"] for row in scores} == {"unet", "segformer", "primus"}
    for case, expected in ((each, each["metrics"]["1"]["ObjectF1"]) for each in summary["metric_per_case"]):
        name = Path(case["reference_file"]).stem
        (row,) = [row for row in scores if (row["method"], row["case"]) == ("segformer", name)]
        assert float(row["value"]) == pytest.approx(expected)
    report = (folder / "comparison" / "report.html").read_text(encoding="utf-8")
    assert re.search("not testable", report)


def write_photographs(folder: Path) -> dict[str, np.ndarray]:
    """Two eyes of five patients, with masks in colours and fields of view; returns the labels of each."""
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255], [0, 255, 0], [255, 255, 255]], np.uint8)
    for part in ("images", "av", "mask"):
        (folder / "training" / part).mkdir(parents=True)
    generator = np.random.default_rng(2)
    y, x = np.mgrid[:48, :48] - 23.5
    inside = y**2 + x**2 < 23**2
    written = {}
    for number in range(10):
        name = f"p{number // 2}_{'LR'[number % 2]}.png"
        labels = np.zeros((48, 48), np.uint8)
        labels[12 + number : 14 + number, 8:40] = 1
        labels[8:40, 20:22] = 2
        labels[12 + number : 14 + number, 20:22] = 3
        labels[36:40, 20:22] = 4
        photograph = 60 * (labels[..., None] > 0) + generator.integers(60, 120, (48, 48, 3))
        Image.fromarray((photograph * inside[..., None]).astype(np.uint8)).save(folder / "training" / "images" / name)
        Image.fromarray(colours[labels]).save(folder / "training" / "av" / name)
        Image.fromarray(inside).save(folder / "training" / "mask" / name)
        written[name] = np.where(inside, labels, 4)
    return written


def test_fundus_photographs(reader: Reader) -> None:
    folder = reader.folder
    references = write_photographs(folder)
    is_needed = ("export DEVICE", "export BUDGET")
    reader.follow([block for block in blocks_of(DOCUMENT) if block.file == "nuclei.yaml"])
    reader.follow([block for block in blocks_of(DOCUMENT) if any(words in block.text for words in is_needed)])
    reader.follow(blocks_of(DOCUMENT, FUNDUS))
    raw, results = folder / "raw" / "Dataset071_Vessels", folder / "results" / "Dataset071_Vessels"
    for name, labels in references.items():
        np.testing.assert_array_equal(np.asarray(Image.open(raw / "labelsTr" / name)), labels)
    for split in read_json(raw / "splits_final.json"):
        assert len({case[:2] for case in split["val"]}) == 1
        assert len(split["val"]) == 2
    model = results / "nnUNetTrainer_vit__nnUNetPlans__2d"
    assert "skeleton_recall" in (model / "fold_0" / "config.yaml").read_text()
    assert set(read_json(model / "fold_0" / "validation" / "summary.json")["mean"]) == {
        "(1, 2, 3)",
        "(1, 3)",
        "(2, 3)",
        "3",
    }
    score_as_the_document_says(reader, raw)


def score_as_the_document_says(reader: Reader, raw: Path) -> None:
    """docs/retina.md: predictions that find every vessel and take veins for arteries in one half of the pictures."""
    folder = reader.folder
    shutil.copytree(raw / "labelsTr", folder / "REFERENCES")
    shutil.copytree(folder / "training" / "mask", folder / "FIELDS")
    shutil.copy(raw / "dataset.json", folder)
    (folder / "PICTURES").mkdir()
    for path in (folder / "training" / "av").iterdir():
        colours = np.array(Image.open(path))
        colours[(colours == 255).all(axis=-1)] = 0  # undecided
        if path.stem.endswith("R"):
            colours[colours[..., 2] == 255] = (255, 0, 0)
        Image.fromarray(colours).save(folder / "PICTURES" / path.name)
    blocks = blocks_of("retina.md")
    reader.follow(blocks[:1])
    shutil.copytree(folder / "PREDICTIONS", folder / "PERSON")
    shutil.copytree(folder / "PREDICTIONS", folder / "OTHERS")
    for path in (folder / "PERSON").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 3).save(path)
    reader.follow(blocks[1:])
    whole = means_by_region(folder / "whole_images.json")
    assert whole["vessel"]["clDice"] == whole["vessel"]["RecallThin"] == 1
    assert whole["artery"]["AccFound"] == whole["artery"]["AccAll"] < 1
    fields = means_by_region(folder / "in_fields_of_view.json")
    assert fields["vessel"]["Sens"] == fields["vessel"]["Spec"] == 1
    assert fields["vein"]["Sens"] == pytest.approx(np.mean([1, 0]), abs=0.1)
    report = (folder / "comparison" / "report.html").read_text(encoding="utf-8")
    assert "person" in report


def means_by_region(summary: Path) -> dict[str, dict[str, float]]:
    content = read_json(summary)
    return {name: content["mean"][key] for name, key in content["regions"].items()}
