"""The models of a study, checked against a dataset before anything is trained."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import nnunetv2.configs
from dinov3.utils.devices import available_devices
from nnunetv2.comparison.errors import NotComparableError
from nnunetv2.errors import UsageError
from nnunetv2.study.cost_estimate import described
from nnunetv2.study.entry_point import study_entry
from nnunetv2.study.methods import resolve_methods, validated_cases
from nnunetv2.study.run_study import Study, compare_all, read_study, require_fair, train_all
from nnunetv2.study.study_config import StudyConfig, load_study
from nnunetv2.training.setup.budget import Budget
from tests.study.study_jobs import mark
from tests.study.test_power_report import write_report
from tests.training.tiny_dataset import NAME, write_tiny_dataset

pytestmark = pytest.mark.slow

TINY_M2F = {"model.backbone_size": "tiny", "model.pretrained": False, "training.patch_size": [64, 64]}


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


def resolve(base: Path, section: dict[str, Any] | None = None, **settings: Any):
    return resolve_methods(StudyConfig(dataset=NAME, models={"mine": section}, **settings), NAME, base)[0]


def test_the_trainer_decides_on_the_command(dataset, tmp_path):
    (tmp_path / "m2f.yaml").write_text("lora: {r: 2}\nmodel: {backbone_size: base}")
    unet = resolve(tmp_path, budget=Budget(num_epochs=3))
    assert (unet.program, unet.words, unet.num_epochs, unet.patch_size) == ("nnUNetv2_train", (), 3, (32, 32))
    m2f = resolve(tmp_path, {"trainer": "nnUNetTrainer_m2f", "config": "m2f.yaml", "settings": TINY_M2F})
    assert (m2f.program, m2f.module) == ("nnUNetv2_train_m2f", "nnunetv2.run.run_training_m2f")
    assert m2f.words[:3] == ("--m2f_config", str(tmp_path / "m2f.yaml"), "model.backbone_size=tiny")
    assert m2f.definition["settings"] == {**TINY_M2F, "lora.r": 2}
    assert (m2f.num_epochs, m2f.patch_size, m2f.model_folder) == (160, (64, 64), "nnUNetTrainer_m2f__nnUNetPlans__2d")


def test_a_preset_is_named_like_a_file_that_goes_first(dataset, tmp_path):
    section = {"trainer": "nnUNetTrainer_vit", "config": "cells", "settings": {"model.backbone_size": "tiny"}}
    mine = resolve(tmp_path, section)
    assert Path(mine.words[1]) == Path(nnunetv2.configs.__path__[0], "cells.yaml")
    assert mine.definition["settings"]["model.detail_branch"]
    (tmp_path / "cells").write_text("model: {head: dpt}")
    assert resolve(tmp_path, section).words[1] == str(tmp_path / "cells")
    with pytest.raises(UsageError, match="models.mine: There is no settings file or preset 'cell'; presets: cells, "):
        resolve(tmp_path, {**section, "config": "cell"})


@pytest.mark.parametrize(
    ("section", "settings", "message"),
    [
        ({"trainer": "nnUNetTrainr"}, {}, "models.mine: There is no trainer named 'nnUNetTrainr'"),
        ({"plans": "OtherPlans"}, {}, "models.mine: There are no plans OtherPlans"),
        ({"configuration": "3d_fullres"}, {}, "models.mine: .*no configuration '3d_fullres'"),
        ({"settings": {"lora.r": 3}}, {}, "models.mine: nnUNetTrainer takes no settings"),
        ({"trainer": "nnUNetTrainer_m2f", "settings": {"lora.s": 3}}, {}, "no setting 'lora.s'"),
        ({"trainer": "nnUNetTrainer_m2f", "config": "a.yaml"}, {}, "config: .*/a.yaml does not exist; relative paths"),
        (
            {"trainer": "nnUNetTrainer_m2f", "settings": {"model.checkpoint": "w.pth"}},
            {},
            "model.checkpoint: .*/w.pth does not exist",
        ),
        (
            {"trainer": "nnUNetTrainer_m2f", "settings": {"training.num_epochs": 4}},
            {"budget": Budget(num_epochs=3)},
            "models.mine: training.num_epochs=4 contradicts --num_epochs 3",
        ),
        ({"pretrained_weights": "u.pth"}, {}, "pretrained_weights: .*/u.pth does not exist"),
        ({}, {"folds": (0, 5)}, f"folds has 5; {NAME} has the folds 0 to 4, and all"),
    ],
)
def test_what_could_not_be_trained_is_refused(dataset, tmp_path, section, settings, message):
    with pytest.raises(UsageError, match=message):
        resolve(tmp_path, section, **settings)


@pytest.fixture
def study(dataset: Path, tmp_path: Path) -> Study:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "dataset: 777\nfolds: [0]\nseeds: [0, 1]\ndevice: cpu\n"
        "models: {unet: , short: {trainer: nnUNetTrainer_5epochs}}"
    )
    return read_study(path)


def test_a_dry_run_shows_commands_and_costs_and_writes_nothing(study):
    text = described(study)
    assert text.count("nnUNetv2_train Dataset777_Tiny 2d 0 -tr nnUNetTrainer ") == 2
    rows = [line.split() for line in text.splitlines() if line.startswith(("unet ", "short "))]
    assert [row[:10] for row in rows] == [
        ["unet", "2", "of", "2", "1000", "x", "250", "2", "x", "32x32"],
        ["short", "2", "of", "2", "5", "x", "250", "2", "x", "32x32"],
    ]
    assert float(rows[0][10]) == pytest.approx(200 * float(rows[1][10]), rel=0.01)
    assert text.endswith(f"4 of 4 trainings are left, in {study.folder}\n")
    assert not study.folder.exists()


def test_what_would_not_be_comparable_is_said_before_the_training(study, capsys):
    line = "NOT COMPARABLE: iterations: 1000 x 250 (unet) against 5 x 250 (short); set budget.num_epochs"
    file = str(study.folder.with_suffix(".yaml"))
    for words in ([file], [file, "--dry_run"]):
        assert study_entry(words) == 4
        assert capsys.readouterr().err.startswith(line)
    assert not study.folder.exists()


def test_power_is_printed_from_a_pilot_and_nothing_is_written(study, tmp_path, capsys):
    pilot = write_report(tmp_path / "pilot", {"unet": 3, "m2f": 3})
    file = str(study.folder.with_suffix(".yaml"))
    assert study_entry([file, "--power", str(pilot)]) == 0
    text = capsys.readouterr().out
    num_cases = len(validated_cases(study.config, study.dataset))
    assert f"The study ({num_cases} cases, 2 seeds, 2 models (1 pair)) cannot show a difference" in text
    assert "cases needed for" in text
    assert study_entry([file, "--power"]) == 2
    assert f"there is no per_case.csv in {study.folder}" in capsys.readouterr().err
    assert not study.folder.exists()


def test_a_class_that_does_not_exist_is_said_before_the_training(study, capsys):
    file = study.folder.with_suffix(".yaml")
    file.write_text(
        file.read_text().replace("nnUNetTrainer_5epochs", "nnUNetTrainer") + "\ncompare: {classes: [kidny]}"
    )
    assert study_entry([str(file)]) == 2
    assert "--classes is 'kidny'; the classes are " in capsys.readouterr().err
    assert not study.folder.exists()


EXTENSIONS = {
    "metric.py": """
from nnunetv2.comparison.metric import AS_OVERLAP, Metric, register_metric

@register_metric("Mine")
class Mine(Metric):
    meaning, definition, higher_is_better, empty_masks = "mine", "mine.", True, AS_OVERLAP
""",
    "head.py": """
from nnunetv2.model.head import DenseHead, register_head

@register_head("my_head")
class Mine(DenseHead):
    pass
""",
}


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a metric and a head that lack a method."""
    folder = tmp_path / "of_the_user"
    folder.mkdir()
    for name, text in EXTENSIONS.items():
        (folder / f"{name.removesuffix('.py')}_of_a_study.py").write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("nnUNet_extensions", str(folder))
    return folder


def test_a_metric_that_cannot_compute_is_said_before_the_training(study, extensions, capsys):
    path = study.folder.with_suffix(".yaml")
    path.write_text(path.read_text() + "\nbudget: {num_epochs: 1}\n")
    message = "metric_of_a_study.py, line 4: Mine must define compute(self, pair), see Metric"
    for words in ([str(path)], [str(path), "--dry_run"]):
        assert study_entry(words) == 2
        assert message in capsys.readouterr().err
    assert not study.folder.exists()
    path.write_text(path.read_text() + "compare: {metrics: [Dice]}\n")
    assert study_entry([str(path), "--dry_run"]) == 0


def with_folders(study: Study, folder: Path, **compare: str) -> list[str]:
    """Writes the study's file with these folders in its section `compare`; returns the words of a dry run."""
    path = folder / "mine.yaml"
    words = ", ".join(f"{key}: {value}" for key, value in {"allow": "[all]", **compare}.items())
    path.write_text(f"{path.read_text()}\ncompare: {{{words}}}\n")
    return [str(path), "--dry_run"]


def test_fields_of_view_and_a_second_reader_start_from_the_folder_of_the_file(study, dataset, tmp_path, monkeypatch):
    for name in ("fields", "person"):
        shutil.copytree(dataset / "gt_segmentations", tmp_path / "data" / name)
    monkeypatch.chdir(dataset)
    words = with_folders(study, tmp_path, fov="data/fields", reader="ann=data/person", lacks='["ann:right"]')
    assert study_entry(words) == 0
    given = {}
    monkeypatch.setattr("nnunetv2.comparison.compare.compare", lambda *models, **options: given.update(options))
    done = read_study(Path(words[0]))
    compare_all(replace(done, jobs=()))
    assert (given["fields"], given["reader"]) == (tmp_path / "data/fields", f"ann={tmp_path}/data/person")


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ({"fov": "fields"}, "fields (-fov) has no field of view for 1 of "),
        ({"reader": "person"}, "person (--reader) has no segmentation of "),
        ({"fov": "nowhere"}, "nowhere, which does not exist"),
        ({"reader": "ann=nowhere"}, "There is no folder "),
        ({"reader": "unet=person"}, "--reader is called unet like a method"),
    ],
)
def test_folders_that_would_fail_the_comparison_are_said_before_the_training(
    study, dataset, tmp_path, capsys, compare, message
):
    for name in ("fields", "person"):
        shutil.copytree(dataset / "gt_segmentations", tmp_path / name)
        (tmp_path / name / f"{validated_cases(study.config, study.dataset)[0]}.png").unlink()
    assert study_entry(with_folders(study, tmp_path, **compare)) in (2, 3)
    assert message in capsys.readouterr().err


def test_a_head_that_lacks_a_method_is_said_before_the_training(dataset, extensions, tmp_path):
    settings = {"model.head": "my_head", "model.backbone_size": "tiny", "model.pretrained": False}
    with pytest.raises(
        UsageError, match=r"models.mine: .*head_of_a_study.py, line 4: Mine must define forward\(self, f"
    ):
        resolve(tmp_path, {"trainer": "nnUNetTrainer_vit", "settings": settings})


def test_a_device_that_is_not_there_is_said_before_the_first_training(study):
    if "mps" in available_devices():
        pytest.skip("this machine has all devices")
    missing = replace(study, config=replace(study.config, device="mps"))
    with pytest.raises(UsageError, match="has no mps device that torch can use; it has .*device: cpu"):
        train_all(missing)
    assert not study.folder.exists()


def test_the_default_precisions_on_a_gpu_are_not_the_same(dataset, tmp_path):
    config = {"models": {"unet": None, "m2f": {"trainer": "nnUNetTrainer_m2f"}}, "dataset": NAME}
    length = {"num_epochs": 3, "num_iterations_per_epoch": 2}
    methods = resolve_methods(StudyConfig(**config, budget=Budget(**length)), NAME, tmp_path)
    with pytest.raises(
        NotComparableError, match=r"^NOT COMPARABLE: precision: fp16 \(unet\) against bf16 \(m2f\); set"
    ):
        require_fair(methods, ())
    require_fair(methods, ["precision"])
    require_fair(resolve_methods(StudyConfig(**config, budget=Budget(**length, precision="bf16")), NAME, tmp_path), ())


def test_another_augmentation_is_said_before_the_training(dataset, tmp_path):
    models = {"unet": None, "m2f": {"trainer": "nnUNetTrainer_m2f"}, "bare": {"trainer": "nnUNetTrainerNoDA"}}
    budget = Budget(num_epochs=3, num_iterations_per_epoch=2, precision="fp32")
    methods = resolve_methods(StudyConfig(models=models, dataset=NAME, budget=budget), NAME, tmp_path)
    require_fair(methods[:2], ())
    with pytest.raises(NotComparableError) as caught:
        require_fair(methods, ())
    augmentation, mirroring = str(caught.value).splitlines()
    assert (
        augmentation.startswith("NOT COMPARABLE: augmentation: ")
        and "against only what all have (bare)" in augmentation
    )
    assert mirroring.startswith("NOT COMPARABLE: mirroring: 0, 1 (unet, m2f) against none (bare); change the models")
    require_fair(methods, ["augmentation", "mirroring"])


def test_a_trainer_that_cannot_tell_its_augmentation_yet_is_not_refused(dataset, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise AttributeError("the network is missing")

    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f.nnUNetTrainer_m2f.get_training_transforms", fail
    )
    models = {"unet": None, "m2f": {"trainer": "nnUNetTrainer_m2f"}}
    budget = Budget(num_epochs=3, num_iterations_per_epoch=2, precision="fp32")
    methods = resolve_methods(StudyConfig(models=models, dataset=NAME, budget=budget), NAME, tmp_path)
    assert "augmentation" not in methods[1].protocol.sources.run_line
    require_fair(methods, ())


def test_the_models_of_the_template_are_comparable(dataset, tmp_path):
    path = tmp_path / "mine.yaml"
    assert study_entry(["--init", str(path)]) == 0
    require_fair(resolve_methods(load_study(path), NAME, tmp_path), ())


def test_a_study_needs_no_folder_of_results(study, monkeypatch):
    monkeypatch.delenv("nnUNet_results")
    assert described(read_study(study.folder.with_suffix(".yaml"))) == described(study)


def test_what_may_differ_must_be_something(dataset, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("dataset: 777\nmodels: {unet: }\ncompare: {allow: [colour]}")
    with pytest.raises(UsageError, match="compare.allow has 'colour'; accepted are "):
        read_study(path)


def test_hours_follow_from_epochs_that_were_timed(study):
    cut_off, done = study.jobs[0], study.jobs[2]
    mark(cut_off, "checkpoint_best.pth", "metrics.jsonl")
    mark(done, "checkpoint_final.pth", "validation/summary.json")
    epochs = [f'{{"type": "epoch", "epoch": {number}, "seconds": 36}}\n' for number in range(100)]
    (cut_off.fold_folder / "metrics.jsonl").write_text("".join(epochs))
    (row,) = (line.split() for line in described(study).splitlines() if line.startswith("unet "))
    assert row[1:4] == ["1", "of", "2"]
    assert row[-2:] == ["10.00", "9.00"]
    assert described(study).endswith(
        "3 of 4 trainings are left, in " + f"{study.folder}: at least 9.0 hours one after the other\n"
    )
