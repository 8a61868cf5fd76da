"""The metrics of docs/extending.md, as a user would add them: files outside the repository, then the command."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from nnunetv2.comparison import scoring
from nnunetv2.comparison.entry_point import build_parser, compare_entry
from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.study.study_config import load_study
from tests.comparison.test_compare import eroded, reference, shifted, write

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
SECTION = re.search(r"## A metric of your own\n.*?(?=\n## |\Z)", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[0]
FIRST, SECOND, TRIAL = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)
(COMMAND,) = re.findall(r"^    nnUNetv2_compare (.*)$", SECTION, flags=re.MULTILINE)

NUM_CASES = 6
QUICK = ["-np", "1", "--bootstrap", "200"]


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user with both files."""
    folder = tmp_path / "my_nnunet"
    folder.mkdir()
    (folder / "volume_error.py").write_text(FIRST)
    (folder / "hd.py").write_text(SECOND)
    monkeypatch.setenv("nnUNet_extensions", str(folder))
    return folder


@pytest.fixture
def predictions(nnunet_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Dataset 4, and predictions of two models in the folders that the command of the document names."""
    raw = nnunet_folders["nnUNet_raw"] / "Dataset004_Tiny"
    for number in range(NUM_CASES):
        labels = reference(number)
        name = f"case_{number}.nii.gz"
        write(labels, raw / "labelsTr" / name)
        write(shifted(labels, 1), tmp_path / "predictions" / "unet" / name)
        worse = eroded(labels)
        worse[worse == (2 if number == 0 else -1)] = 0  # in one case nothing is predicted of a class
        write(worse, tmp_path / "predictions" / "m2f" / name)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "first": 1, "second": 2},
        "numTraining": NUM_CASES,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(file: Path, **wanted: str) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if wanted.items() <= row.items()]


def plain(text: str) -> str:
    """Without markup and line ends, for a search."""
    return " ".join(re.sub(r"[*\\>]", "", text).split())


@pytest.mark.slow
def test_the_metric_of_the_document_is_in_every_part_of_a_report(
    extensions: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "num_processes_for", lambda files, at_most: 2)  # in workers, which import it too
    assert compare_entry([*shlex.split(COMMAND), *QUICK]) == 0
    out = predictions / "comparison"
    errors = {row["case"]: float(row["value"]) for row in _of_class("second", method="m2f", metric="VolumeError")}
    for number in range(NUM_CASES):
        expected = (reference(number) == 2).sum()
        predicted = 0 if number == 0 else (eroded(reference(number)) == 2).sum()
        assert errors[f"case_{number}"] == pytest.approx(100 * (expected - predicted) / expected)
    assert {float(row["value"]) for row in _of_class("first", method="unet", metric="VolumeError")} == {0.0}
    for name in ("summary.csv", "tests.csv", "ranks.csv"):
        assert rows(out / name, metric="VolumeError"), name
    (pair,) = rows(out / "tests.csv", metric="VolumeError", **{"class": "(mean)"})
    assert float(pair["rank_biserial"]) == (1 if pair["first"] == "unet" else -1)  # the lower error is the better one
    (known,) = [each for each in json.loads((out / "comparison.json").read_text())["metrics"] if "sha256" in each]
    content = (extensions / "volume_error.py").read_bytes()
    assert known == {
        "name": "VolumeError",
        "meaning": "absolute relative volume error",
        "higher_is_better": False,
        "unit": "%",
        "definition": "difference of both volumes, divided by that of the reference.",
        "file": "volume_error.py",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    markdown = plain((out / "report.md").read_text(encoding="utf-8"))
    quoted = plain(re.search(r"^> .*\n> .*$", SECTION, flags=re.MULTILINE)[0])
    assert quoted.endswith("SHA-256 ...")
    for text in (
        quoted.removesuffix("..."),
        "VolumeError (%) ↓",
        "VolumeError: where nothing is predicted of a class that is there, 100.",
    ):
        assert text in markdown
    for name in ("report.html", "table.tex"):
        assert "VolumeError" in (out / name).read_text(encoding="utf-8")


def _of_class(name: str, **wanted: str) -> list[dict[str, str]]:
    found = rows(Path("comparison") / "per_case.csv", **wanted, **{"class": name})
    assert len(found) == NUM_CASES
    return found


@pytest.mark.slow
def test_both_metrics_are_in_a_report_without_being_named_and_shared_distances_are_measured_once(
    extensions: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.comparison import mask_pair

    calls = []
    measure = mask_pair.surface_distances
    monkeypatch.setattr(mask_pair, "surface_distances", lambda *masks: calls.append(1) or measure(*masks))
    words = shlex.split(COMMAND.partition(" --metrics")[0])
    assert compare_entry([*words, *QUICK]) == 0
    assert len(calls) == 2 * 2 * NUM_CASES - 1  # models x classes x cases, but for the one without a prediction
    out = predictions / "comparison"
    assert list(dict.fromkeys(row["metric"] for row in rows(out / "per_case.csv"))) == [
        "Dice", "NSD", "HD95", "ASSD", "HD", "VolumeError"
    ]  # fmt: skip
    largest, most = (rows(out / "per_case.csv", metric=metric) for metric in ("HD", "HD95"))
    assert [row["case"] for row in largest] == [row["case"] for row in most]
    assert all(float(hd["value"]) >= float(hd95["value"]) for hd, hd95 in zip(largest, most, strict=True))
    (missed,) = rows(out / "per_case.csv", metric="HD", n_pred="0")
    assert float(missed["value"]) == pytest.approx(np.hypot(np.hypot(10 * 2.0, 24 * 1.5), 20 * 1.0))
    assert "HD95, ASSD and HD are set to the diagonal" in (out / "report.md").read_text(encoding="utf-8")


def test_the_file_of_a_study_takes_it(extensions: Path, tmp_path: Path) -> None:
    (section,) = re.findall(r"`(compare: .*?)`", SECTION)
    for lines, metrics in (
        (section, ("Dice", "VolumeError")),
        ("", ("Dice", "NSD", "HD95", "ASSD", "HD", "VolumeError")),
    ):
        (tmp_path / "study.yaml").write_text(f"dataset: 4\nmodels: {{unet: }}\n{lines}\n")
        assert load_study(tmp_path / "study.yaml").compare.settings().metrics == metrics


def test_the_help_names_it(extensions: Path) -> None:
    assert "clDice, HD, VolumeError; the first decides" in " ".join(build_parser().format_help().split())


def test_the_trial_of_the_document_runs(extensions: Path) -> None:
    pytest.importorskip("monai")
    names: dict = {}
    exec(compile(TRIAL, "docs/extending.md", "exec"), names)
    assert names["value"] == 1.5


def test_what_the_document_says_of_rules_for_empty_masks_holds() -> None:
    from nnunetv2.comparison import metric

    table = re.findall(r"^\| `(AS_\w+|EmptyMasks\(.*\))`.* \| (.*) \| (.*) \|$", SECTION, flags=re.MULTILINE)
    assert len(table) == 5
    for source, missed, absent in table:
        rule = eval(source, vars(metric))
        words = {metric.DIAGONAL: "the diagonal of the image in mm, counted"}
        words[metric.COMPUTED] = "`compute` is called with the empty mask"
        assert missed == (words[rule.missed] if isinstance(rule.missed, str) else f"{rule.missed:g}")
        assert (absent == "the same") == (rule.absent == metric.COMPUTED)
        assert (rule.absent is None) == (absent == "left out")
        if isinstance(rule.absent, tuple):
            empty, other = (f"{number:g}" for number in rule.absent)
            assert absent == f"{empty} for an empty prediction, {other} for any other"


def test_without_the_variable_nothing_is_added() -> None:
    assert CompareSettings().metrics == ("Dice", "NSD", "HD95", "ASSD")
    assert "VolumeError" not in METRICS
