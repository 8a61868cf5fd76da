"""Which classes are scored and which decide is declared by the call; artery and vein, as in pictures of the retina."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2.comparison.declared_classes import chosen, declared_lacks, declared_regions
from nnunetv2.comparison.entry_point import compare_entry
from nnunetv2.errors import UsageError
from nnunetv2.evaluation.evaluate_entry_points import evaluate_folder_entry_point, evaluate_simple_entry_point

DATASET = "Dataset901_Vessels"
LABELS = {"background": 0, "artery": 1, "vein": 2, "crossing": 3, "ignore": 4}
REGIONS = ("--regions", "artery=1,3", "vein=vein,crossing", "vessel=1+2+3")
NUM_CASES = 6


def reference(number: int) -> np.ndarray:
    """An artery and a vein that cross, and a column of ignored pixels; their length depends on the case."""
    labels = np.zeros((24, 24), dtype=np.uint8)
    labels[4:7, 2 : 18 + number % 3] = 1
    labels[2 : 20 + number % 2, 8:10] = 2
    labels[4:7, 8:10] = 3
    labels[:, 22] = 4
    return labels


def careful(labels: np.ndarray) -> np.ndarray:
    """Knows no crossing; loses the end of the vein."""
    found = np.where(labels == 3, 1, labels)
    found[19:] = 0
    return np.where(found == 4, 0, found)


def careless(labels: np.ndarray) -> np.ndarray:
    """Knows the crossing; loses a good part of artery and vein."""
    found = labels.copy()
    found[4:7, 11:], found[12:, 8:10] = 0, 0
    return np.where(found == 4, 0, found)


def binary(labels: np.ndarray) -> np.ndarray:
    """Knows vessels only."""
    found = ((labels > 0) & (labels < 4)).astype(np.uint8)
    found[4, 2:4] = 0
    return found


METHODS = {"careful": careful, "careless": careless, "human": binary}


def save(labels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(path)


@pytest.fixture
def vessels(nnunet_folders: dict[str, Path], tmp_path: Path) -> Path:
    """A raw dataset without images, a folder of predictions per method, and fields of view."""
    raw = nnunet_folders["nnUNet_raw"] / DATASET
    for number in range(NUM_CASES):
        labels = reference(number)
        save(labels, raw / "labelsTr" / f"eye{number}.png")
        for name, method in METHODS.items():
            save(method(labels), tmp_path / name / f"eye{number}.png")
        field = np.full_like(labels, 255)
        field[:, :3] = 0
        save(field, tmp_path / "fov" / f"eye{number}.bmp")
    description = {"channel_names": {"0": "R"}, "labels": LABELS, "numTraining": NUM_CASES, "file_ending": ".png"}
    (raw / "dataset.json").write_text(json.dumps(description))
    return tmp_path


def compared(folder: Path, *arguments: str, methods: tuple[str, ...] = ("careful", "careless")) -> dict:
    """The content of comparison.json."""
    words = [f"{method}={folder / method}" for method in methods]
    common = ["-o", str(folder / "out"), "-np", "1", "--bootstrap", "100"]
    assert compare_entry(["-d", "901", "-m", *words, *common, *arguments]) == 0
    return json.loads((folder / "out" / "comparison.json").read_text())


def means(content: dict, class_name: str | None = None) -> dict[str, float]:
    primary = content["settings"]["metrics"][0]
    return {
        each["method"]: each["mean"]
        for each in content["summaries"]
        if (each["metric"], each["class_name"]) == (primary, class_name)
    }


def dice(prediction: np.ndarray, expected: np.ndarray) -> float:
    return 2 * (prediction & expected).sum() / (prediction.sum() + expected.sum())


def mean_dice(method: str, *labels: int) -> float:
    values = []
    for number in range(NUM_CASES):
        expected = reference(number)
        is_counted = expected != 4
        masks = (np.isin(each, labels) & is_counted for each in (METHODS[method](expected), expected))
        values.append(dice(*masks))
    return float(np.mean(values))


@pytest.mark.slow
def test_classes_that_a_folder_never_predicts_are_asked_for_and_do_not_decide(vessels, caplog):
    """Scored as missed, the crossing would turn the order round."""
    content = compared(vessels, "--metrics", "Dice", "HD95")
    assert "careful predicts crossing in none of its 6 files" in caplog.text
    assert content["averaged_classes"] == ["artery", "vein"]
    expected = {name: (mean_dice(name, 1) + mean_dice(name, 2)) / 2 for name in ("careful", "careless")}
    assert means(content) == pytest.approx(expected, abs=1e-12)
    assert means(content, "crossing").keys() == {"careless"}
    opening = content["verdict"][0]
    assert opening.startswith("careful has the highest mean Dice over artery and vein of 2 methods")
    assert "Means are over the classes that all methods have: careful lacks crossing." in opening
    assert content["length_unit"] == "px"
    report = (vessels / "out" / "report.md").read_text()
    assert "HD95 (px)" in report and " mm" not in report
    rows = [line.split(",") for line in (vessels / "out" / "per_case.csv").read_text().splitlines()]
    assert {row[6] for row in rows if row[1] == "careful"} == {"artery", "vein"}


@pytest.mark.slow
def test_the_opening_names_the_class_that_turns_the_order(vessels):
    content = compared(vessels, "--metrics", "Dice", "--lacks", "careful:")
    opening = content["verdict"][0]
    assert opening.startswith("careless has the highest mean Dice of 2 methods")
    assert "The classes disagree on careless and careful: careful is better in " in opening
    assert "careless in crossing (by 1.000)" in opening
    assert "careless's lead in the mean comes from crossing alone, which careful never predicts" in opening
    assert "crossing (7." not in opening  # above the share of small classes
    assert content["pairs"][0]["means"] == pytest.approx(
        [sum(mean_dice(name, label) for label in (1, 2, 3)) / 3 for name in ("careful", "careless")], abs=1e-12
    )


@pytest.mark.slow
def test_a_method_with_fewer_classes_stands_beside_the_others(vessels):
    methods = ("careful", "careless", "human")
    arguments = (*REGIONS, "--primary", "artery", "vein", "clDice", "--lacks", "human:artery,vein", "--metrics", "Dice")
    content = compared(vessels, *arguments, methods=methods)
    assert content["settings"]["metrics"] == ["clDice", "Dice"]
    assert content["averaged_classes"] == ["artery", "vein"]
    assert means(content).keys() == means(content, "artery").keys() == {"careful", "careless"}
    assert means(content, "vessel").keys() == set(methods)
    assert "human lacks artery and vein and takes no part in the mean; in vessel, " in content["verdict"][0]
    found = {
        (each["method"], each["class_name"]): each["mean"] for each in content["summaries"] if each["metric"] == "Dice"
    }
    assert found["human", "vessel"] == pytest.approx(mean_dice("human", 1, 2, 3), abs=1e-12)
    assert found["careless", "vein"] == pytest.approx(mean_dice("careless", 2, 3), abs=1e-12)
    assert ("human", "artery") not in found


@pytest.mark.slow
def test_a_second_reader_is_a_line_and_no_competitor(vessels):
    arguments = ("--reader", f"grader={vessels / 'human'}", "--lacks", "grader:artery,vein", "--metrics", "Dice")
    content = compared(vessels, *REGIONS, *arguments, "-fov", str(vessels / "fov"))
    assert content["methods"] == ["careful", "careless"] and content["has_fields_of_view"]
    reader = content["reader"]
    assert [each["class_name"] for each in reader["summaries"]] == ["vessel"]
    assert {(each["first"], each["second"]) for each in reader["pairs"]} == {
        ("careful", "grader"),
        ("careless", "grader"),
    }
    # within the field of view the reader misses one pixel instead of two
    expected = np.mean([1 - 1 / (2 * np.isin(reference(number)[:, 3:], (1, 2, 3)).sum() - 1) for number in range(6)])
    assert reader["summaries"][0]["mean"] == pytest.approx(expected, abs=1e-12)
    sentence = next(each for each in content["verdict"] if "grader" in each)
    assert sentence.startswith("A second reading of these cases (grader) has a mean Dice in vessel of 0.99")
    report = (vessels / "out" / "report.md").read_text()
    assert "### Agreement of grader" in report and "grader lacks" not in report
    assert "Dashed line: mean of grader" in (vessels / "out" / "report.html").read_text()


def test_evaluation_of_a_folder_needs_no_plans_and_takes_regions_and_metrics(vessels, caplog):
    caplog.set_level("INFO")
    raw = vessels / "nnUNet_raw" / DATASET
    folders = [str(raw / "labelsTr"), str(vessels / "careless")]
    common = ["-djfile", str(raw / "dataset.json"), "-np", "1", "-o", str(vessels / "scores.json")]
    choice = [*REGIONS, "--metrics", "clDice", "Sens", "AccFound", "--primary", "vein", "clDice"]
    assert evaluate_folder_entry_point([*folders, *common, *choice]) == 0
    summary = json.loads((vessels / "scores.json").read_text())
    assert summary["regions"] == {"artery": "(1, 3)", "vein": "(2, 3)", "vessel": "(1, 2, 3)"}
    assert summary["mean"]["(2, 3)"]["Dice"] == pytest.approx(mean_dice("careless", 2, 3), abs=1e-12)
    assert "AccFound" in summary["mean"]["(1, 3)"] and "AccFound" not in summary["mean"]["(1, 2, 3)"]
    assert summary["primary_mean"] == summary["mean"]["(2, 3)"]
    assert set(summary["foreground_mean"]) == {
        *("Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"),
        *("clDice", "Sens", "AccFound"),
    }
    assert caplog.messages[-1].startswith(f"Mean clDice {summary['primary_mean']['clDice']:.5f} over 6 cases;")


def test_without_new_flags_a_summary_has_the_keys_of_upstream(vessels):
    folders = [str(vessels / "nnUNet_raw" / DATASET / "labelsTr"), str(vessels / "careful")]
    assert evaluate_simple_entry_point([*folders, "-l", "1", "2", "-il", "4", "-np", "1"]) == 0
    summary = json.loads((vessels / "careful" / "summary.json").read_text())
    assert set(summary) == {"foreground_mean", "mean", "metric_per_case"}
    assert set(summary["mean"]["1"]) == {"Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"}


def test_the_field_of_view_holds_for_all_scores_of_an_evaluation(vessels):
    folders = [str(vessels / "nnUNet_raw" / DATASET / "labelsTr"), str(vessels / "human")]
    arguments = ["--regions", "vessel=1,2,3", "-il", "4", "-np", "1", "-fov", str(vessels / "fov"), "--metrics", "Spec"]
    assert evaluate_simple_entry_point([*folders, *arguments]) == 0
    case = json.loads((vessels / "human" / "summary.json").read_text())["metric_per_case"][0]["metrics"]["(1, 2, 3)"]
    assert case["TP"] + case["FP"] + case["FN"] + case["TN"] == 24 * (24 - 3 - 1)
    assert (case["FN"], case["Spec"]) == (1, 1.0)


def test_missing_fields_of_view_are_named(vessels, capsys):
    (vessels / "fov" / "eye3.bmp").unlink()
    folders = [str(vessels / "nnUNet_raw" / DATASET / "labelsTr"), str(vessels / "human")]
    assert evaluate_simple_entry_point([*folders, "-l", "1", "-fov", str(vessels / "fov")]) == 3
    assert "has no field of view for 1 of 6 cases: eye3" in capsys.readouterr().err


def test_pictures_of_another_format_name_the_cure(vessels, capsys):
    (vessels / "gifs").mkdir()
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(vessels / "gifs" / "eye0.gif")
    words = [f"careful={vessels / 'careful'}", f"other={vessels / 'gifs'}"]
    assert compare_entry(["-d", "901", "-m", *words, "-o", str(vessels / "out")]) == 2
    error = capsys.readouterr().err
    assert "1 pictures of another format are there, such as eye0.gif" in error
    assert "nnUNetv2_import_images --predictions" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("vessel",), "write NAME=LABEL"),
        (("vessel=1,9",), "9 is no label of a class; accepted are artery .1., vein .2."),
        (("vessel=1,ignore",), "ignore is no label of a class"),
        (("vessel=1", "vessel=2"), "has vessel twice"),
    ],
)
def test_wrong_regions_are_rejected(words, message):
    with pytest.raises(UsageError, match=message):
        declared_regions(words, LABELS, ignore_label=4)


def test_regions_are_labels_by_name_or_number():
    assert declared_regions(["a=artery,3", "v=2", "all=3+1+2"], LABELS, 4) == {"a": (1, 3), "v": 2, "all": (1, 2, 3)}
    assert declared_regions(["a=5,7"], {}) == {"a": (5, 7)}


def test_lacking_classes_are_those_of_methods_that_exist():
    classes = ("artery", "vein", "vessel")
    methods = ("net", "human")
    assert declared_lacks(["human:artery,vein", "net:"], methods, classes) == {
        "human": {"artery", "vein"},
        "net": frozenset(),
    }
    for word, message in (
        ("human", "write METHOD:CLASS"),
        ("huma:vein", "there is no method huma"),
        ("human:vain", "did you mean vein"),
        ("human:artery,vein,vessel", "lacks every class"),
    ):
        with pytest.raises(UsageError, match=message):
            declared_lacks([word], methods, classes)
    with pytest.raises(UsageError, match="--classes is 'arter'; the classes are artery, vein, vessel"):
        chosen("--classes", ["arter"], classes)
