"""The file of a study: what it may hold, what is refused, and the two that are shipped."""

from __future__ import annotations

import json
import runpy
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path

import pytest

from dinov3.utils.config_layers import plain_config, section_of
from nnunetv2.comparison.settings import CompareSettings
from nnunetv2.errors import UsageError
from nnunetv2.study.entry_point import study_entry
from nnunetv2.study.study_config import ModelSection, StudyConfig, load_study, study_folder
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.conftest import REPOSITORY
from tests.training.tiny_dataset import tiny_plans

TEMPLATE = Path(str(files("nnunetv2.configs").joinpath("study.yaml")))
EXAMPLE = REPOSITORY / "docs" / "examples" / "study_scratch_assay.yaml"


def study(folder: Path, text: str) -> StudyConfig:
    path = folder / "study.yaml"
    path.write_text(text)
    return load_study(path)


def test_models_are_read_and_everything_else_has_a_default(tmp_path):
    config = study(
        tmp_path, "dataset: 004\nmodels: {unet: , m2f: {trainer: T, settings: {model: {type: eomt}, lora.r: 4}}}"
    )
    assert (config.dataset, config.folds, config.seeds, config.budget.given()) == (
        "004",
        (0, 1, 2, 3, 4),
        (0, 1, 2),
        {},
    )
    assert config.sections() == {
        "unet": ModelSection(),
        "m2f": ModelSection(trainer="T", settings={"model": {"type": "eomt"}, "lora.r": 4}),
    }
    assert config.compare.settings() == CompareSettings()
    assert type(config.compare.settings()) is CompareSettings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {a: }", "dataset is missing"),
        ("dataset: 4", "models is missing"),
        ("dataset: 4\nmodel: {a: }", "line 2: there is no setting 'model'; did you mean models?"),
        ("dataset: 4\nmodels: {a: {trainr: x}}", "models.a: there is no setting 'trainr'; did you mean trainer?"),
        ("dataset: 4\nmodels: {a: unet}", "models.a is 'unet'; give `key: value` pairs"),
        ("dataset: 4\nmodels: {a: {settings: 3}}", "models.a.settings=3 is not accepted; give"),
        ("dataset: 4\nmodels: {a/b: }", "models.a/b: names become folders"),
        ("dataset: 4\nmodels: {..: }", "names become folders"),
        ("dataset: 4\nmodels: {a: , A: }", "models.a: names become folders; give each one of its own"),
        ("dataset: 4\nmodels: {a: }\nbudget: {num_epoch: 3}", "'budget.num_epoch'; did you mean budget.num_epochs?"),
        ("dataset: 4\nmodels: {a: }\nbudget: {num_epochs: 0}", "num_epochs is 0; accepted are whole numbers from 1"),
        ("dataset: 4\nmodels: {a: }\nseeds: [1, 1]", r"seeds is \[1, 1\]; give at least one, and none twice"),
        ("dataset: 4\nmodels: {a: }\nseeds: [-1]", "The seed is -1"),
        ("dataset: 4\nmodels: {a: }\nfolds: [x]", "folds has 'x'; accepted are 0, 1, 2, ... and all"),
        ("dataset: 4\nmodels: {a: }\ndevice: gpu", "device is 'gpu'; accepted are cuda, cpu, mps"),
        ("dataset: 4\nmodels: {a: }\ncompare: {baseline: b}", "compare.baseline is 'b'; the models are a"),
        ("dataset: 4\nmodels: {a: }\ncompare: {metrics: [Dise]}", "did you mean Dice?"),
        ("dataset: 4\nmodels: {a: }\nslurm: {cpus: 0}", "slurm.cpus=0 is out of range"),
    ],
)
def test_what_makes_no_study_is_refused(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        study(tmp_path, text)


@pytest.mark.parametrize(("output", "expected"), [("null", "study"), ("results/one", "results/one"), ("/o", "/o")])
def test_the_folder_of_a_study_lies_beside_its_file(tmp_path, output, expected):
    config = study(tmp_path, f"dataset: 4\nmodels: {{a: }}\noutput: {output}")
    assert study_folder(config, tmp_path / "study.yaml") == tmp_path / expected


def test_a_file_without_ending_would_be_its_own_folder(tmp_path):
    with pytest.raises(UsageError, match="study has no ending; call it study.yaml"):
        study_folder(study(tmp_path, "dataset: 4\nmodels: {a: }"), tmp_path / "study")


def _keys(kind: type) -> dict:
    from typing import get_type_hints

    hints = get_type_hints(kind)
    sections = {each.name: section_of(hints[each.name]) for each in fields(kind)}
    return {name: _keys(section) if is_dataclass(section) else None for name, section in sections.items()}


def test_the_template_has_every_setting_at_its_default(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    assert study_entry(["--init", str(path)]) == 0
    assert "nnUNetv2_study" in capsys.readouterr().out
    written, default = load_study(path), plain_config(StudyConfig(dataset="Dataset004_Hippocampus", models={"a": None}))
    values = plain_config(written)
    assert values.pop("models").keys() == {"unet", "m2f"}
    assert all(values["budget"].pop(name) for name in default["budget"])  # an example, as there is no equal default
    del default["models"], default["budget"], values["budget"]
    assert values == default
    import yaml

    text = yaml.safe_load(path.read_text())
    assert text.keys() == _keys(StudyConfig).keys()
    for name, section in _keys(StudyConfig).items():
        assert section is None or text[name].keys() == section.keys()
    shown = {key for section in text["models"].values() for key in section}
    assert shown == {each.name for each in fields(ModelSection)}
    assert study_entry(["--init", str(path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_example_can_be_read():
    config = load_study(EXAMPLE)
    assert list(config.sections()) == ["unet", "upernet", "segformer", "m2f", "eomt"]


def test_the_example_prepares_its_patches_and_folds(tmp_path, monkeypatch):
    folder = tmp_path / "Dataset071_ScratchAssay"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text(json.dumps(tiny_plans()))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    runpy.run_path(str(EXAMPLE.with_suffix(".py")))
    config = load_study(EXAMPLE)
    configuration = PlansManager(folder / "nnUNetPlans.json").get_configuration(config.configuration)
    assert configuration.patch_size == [224, 192] and configuration.data_identifier == "nnUNetPlans_2d"
    splits = json.loads((folder / "splits_final.json").read_text())
    assert len(splits) == len(config.folds)
    assert sorted(splits[0]["val"] + splits[1]["val"]) == [f"scratch_{number:03d}" for number in range(10)]
    assert not any(set(fold["train"]) & set(fold["val"]) for fold in splits)
