"""The cases that runs share, and the refusal of runs that do not cover the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunetv2.comparison.cases import (
    case_problems,
    common_cases,
    dataset_format,
    image_files,
    reference_files,
    require_known_cases,
)
from nnunetv2.comparison.comparability import require_comparable
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.comparison.results import Comparability
from nnunetv2.comparison.scores import Run
from nnunetv2.errors import DataError
from nnunetv2.training.protocol.hashes import cases_description
from tests.comparison.model_folders import DATASET, DATASET_JSON, FOLDS, NAME, Model, write_dataset, write_predictions

CASES = ("a", "b", "c", "<d>")
REFERENCES = {case: Path(f"{case}.png") for case in CASES}


def run(method: str, *folds: str) -> Run:
    """A model whose folds validated the cases in the words."""
    fold_of = {case: str(fold) for fold, cases in enumerate(folds) for case in cases.split()}
    return Run(method, Path(method), {case: Path(case) for case in fold_of}, fold_of)


def predictions(method: str, cases: str) -> Run:
    return Run(method, Path(method), {case: Path(case) for case in cases.split()}, {})


def require(runs: tuple[Run, ...], allowed: tuple[str, ...] = ()) -> None:
    """Refuses the runs unless their problems are allowed."""
    require_comparable(Comparability((), allowed), case_problems(runs, REFERENCES))


def refused(*runs: Run) -> list[str]:
    with pytest.raises(NotComparableError) as caught:
        require(runs)
    return str(caught.value).splitlines()


def test_runs_on_the_same_cases_are_compared_on_all_of_them_in_any_order():
    runs = (run("unet", "a b", "c <d>"), run("m2f", "b a", "<d> c"), predictions("other", "c b a <d>"))
    assert common_cases(runs, REFERENCES) == common_cases(runs[::-1], REFERENCES) == ("<d>", "a", "b", "c")
    assert case_problems(runs, REFERENCES) == ()


def test_a_missing_case_is_named_with_the_run_that_lacks_it():
    (line,) = refused(run("unet", "a b", "c <d>"), run("m2f", "a b", "c"))
    assert line.startswith("NOT COMPARABLE: cases: m2f has no prediction of <d>, which another model has")


def test_every_problem_has_a_line():
    lines = refused(run("unet", "a b", "c <d>"), run("m2f", "a"), predictions("other", "a b c"))
    assert [line.partition(" has no prediction of ")[0] for line in lines] == [
        "NOT COMPARABLE: cases: m2f",
        "NOT COMPARABLE: cases: other",
    ]


def test_cases_that_were_divided_otherwise_are_named():
    (line,) = refused(run("unet", "a b", "c <d>"), run("m2f", "a c", "b <d>"))
    assert line == (
        "NOT COMPARABLE: splits: m2f and unet validated cases in different folds: b (fold 1 against 0), c (fold 0 "
        "against 1); train all models with one splits_final.json"
    )


def test_another_split_is_named_where_folds_have_no_case_in_common():
    lines = refused(run("unet", "a b"), run("m2f", "c <d>"))
    assert any(
        line.startswith("NOT COMPARABLE: splits: in fold 0 m2f alone validated <d>, c, and unet alone a, b")
        for line in lines
    )
    assert len(lines) == 3


def test_folders_of_predictions_have_no_split():
    assert case_problems((run("unet", "a b", "c <d>"), predictions("other", "a b c <d>")), REFERENCES) == ()


def test_a_prediction_without_reference_is_named():
    (line,) = refused(run("unet", "a e"), run("m2f", "a e"))[:1]
    assert line == "NOT COMPARABLE: references: unet predicted e, of which there is no reference"


def test_what_is_allowed_is_compared_on_the_cases_that_all_have():
    runs = (run("unet", "a b", "c <d>"), run("m2f", "a c", "b"), predictions("other", "a b c <d> e"))
    with pytest.raises(NotComparableError, match="^NOT COMPARABLE: references: other predicted e"):
        require(runs, ("cases", "splits"))
    require(runs, ("references", "cases", "splits"))
    require(runs, ("all",))
    assert common_cases(runs, REFERENCES) == ("a", "b", "c")


def test_nothing_in_common_cannot_be_allowed():
    with pytest.raises(DataError, match="no case that all models predicted"):
        common_cases((run("unet", "a"), run("m2f", "b")), REFERENCES)


def test_a_fold_that_validated_other_cases_than_its_training_left_out_is_named(tmp_path):
    folder = Model().write(tmp_path / NAME)
    (apart,) = [Run("m", folder, {case: Path(case) for case in "abcd"}, dict(zip("abcd", "0011", strict=True)))]
    problems = case_problems((apart,), {case: Path(case) for case in "abcd"})
    path = folder / "fold_0" / "metrics.jsonl"
    text = path.read_text()
    changed = json.dumps(cases_description("yz"))
    path.write_text(text.replace(json.dumps(cases_description(FOLDS["0"])), changed))
    assert path.read_text() != text
    (problem,) = set(case_problems((apart,), {case: Path(case) for case in "abcd"})) - set(problems)
    assert problem.item == "splits" and problem.text.startswith("fold 0 of m validated other cases than its training")


def test_a_run_of_another_dataset_is_one_error():
    runs = (run("unet", "a b"), run("m2f", "x y z v w"), predictions("other", "a"))
    with pytest.raises(DataError, match=r"^No case of m2f \(v, w, x, y and 1 more\) has a reference in Dataset7; name"):
        require_known_cases("Dataset7", runs, REFERENCES)
    require_known_cases("Dataset7", (runs[0], predictions("other", "x a")), REFERENCES)


def test_references_are_those_of_the_dataset_or_of_a_folder(nnunet_folders, tmp_path):
    folder = write_dataset(nnunet_folders)
    assert reference_files("777", ".png") == {
        case: folder / "gt_segmentations" / f"{case}.png" for case in sorted(CASES)
    }
    other = write_predictions(tmp_path / "mine", ["z"])
    assert reference_files("777", ".png", other) == {"z": other / "z.png"}
    with pytest.raises(DataError, match=r"no reference segmentation \(\*.nii.gz\) in .*mine; .*-ref"):
        reference_files("777", ".nii.gz", other)


@pytest.mark.parametrize(
    ("labels", "order", "classes", "ignored"),
    [
        ({"background": 0, "left": 1, "right": 2}, None, {"left": 1, "right": 2}, None),
        ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2], {"whole": (1, 2), "core": 2}, 3),
    ],
)
def test_classes_are_labels_or_regions_by_name(nnunet_folders, tmp_path, labels, order, classes, ignored):
    description = {"channel_names": {"0": "gray"}, "labels": labels, "file_ending": ".png"}
    model = Model(dataset_json=description if order is None else {**description, "regions_class_order": order})
    folder = model.write(tmp_path / NAME)
    found = dataset_format(DATASET, [Run("m", folder, {"a": folder}, {"a": "0"})])
    assert (dict(found.classes), found.ignore_label, found.file_ending) == (classes, ignored, ".png")
    assert type(found.reader_writer).__name__ == "NaturalImage2DIO"


def test_without_a_model_the_dataset_tells_the_reader(nnunet_folders):
    write_dataset(nnunet_folders)
    assert type(dataset_format("777", []).reader_writer).__name__ == "NaturalImage2DIO"


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
