from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2.errors import UsageError
from nnunetv2.evaluation import evaluate_entry_points
from nnunetv2.experiment_planning import plan_and_preprocess_api as api
from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as entry_points
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from tests.experiment_planning.tiny_dataset import NAME, write_tiny_dataset

RECORDED_FLAGS = json.loads((Path(__file__).parents[1] / "recorded" / "cli_planning.json").read_text())
PARSERS = {
    "nnUNetv2_extract_fingerprint": entry_points.build_extract_fingerprint_parser,
    "nnUNetv2_plan_experiment": entry_points.build_plan_experiment_parser,
    "nnUNetv2_preprocess": entry_points.build_preprocess_parser,
    "nnUNetv2_plan_and_preprocess": entry_points.build_plan_and_preprocess_parser,
    "nnUNetv2_evaluate_folder": evaluate_entry_points.build_evaluate_folder_parser,
    "nnUNetv2_evaluate_simple": evaluate_entry_points.build_evaluate_simple_parser,
}
OUR_FLAGS = {"--allow_geometry_mismatch", "--num_folds", "--group_by", "--allow_leak"}
OUR_FLAGS |= {"--metrics", "--regions", "--classes", "--primary", "--among", "-fov"}
OPTIONAL_HERE = {"nnUNetv2_evaluate_folder": {"-pfile"}, "nnUNetv2_evaluate_simple": {"-l"}}


class FakePreprocessor:
    """Remembers how it was called."""

    calls: list[tuple]

    def __init__(self, verbose: bool) -> None:
        self.show_progress_bar = None

    def run(self, dataset_id, configuration, plans_identifier, num_processes):
        FakePreprocessor.calls.append((dataset_id, configuration, plans_identifier, num_processes))


@pytest.fixture
def raw_dataset(nnunet_folders, monkeypatch) -> Path:
    monkeypatch.setattr(DatasetFingerprintExtractor, "num_foreground_voxels_for_intensitystats", 1e4)
    monkeypatch.setattr(ConfigurationManager, "preprocessor_class", FakePreprocessor)
    FakePreprocessor.calls = []
    return write_tiny_dataset(nnunet_folders["nnUNet_raw"])


@pytest.mark.parametrize("command", PARSERS)
def test_flags_are_those_of_upstream(command, monkeypatch):
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    ours = [
        {
            "flags": action.option_strings or [action.dest],
            "nargs": action.nargs,
            "type": getattr(action.type, "__name__", None),
            "default": action.default,
            "required": action.required,
        }
        for action in PARSERS[command]()._actions
        if action.dest != "help"
    ]
    added = {flag["flags"][0] for flag in ours} - {flag["flags"][0] for flag in RECORDED_FLAGS[command]}
    assert added <= OUR_FLAGS

    def by_name(flags: list[dict]) -> list[dict]:
        return sorted((flag for flag in flags if flag["flags"][0] not in added), key=lambda flag: flag["flags"])

    upstreams = [
        {**flag, "required": flag["required"] and flag["flags"][0] not in OPTIONAL_HERE.get(command, ())}
        for flag in RECORDED_FLAGS[command]
    ]
    assert by_name(ours) == by_name(upstreams)


def test_whole_command_plans_and_preprocesses(raw_dataset, nnunet_folders):
    assert entry_points.plan_and_preprocess_entry(["-d", "17", "--verify_dataset_integrity", "-npfp", "1"]) == 0
    preprocessed = nnunet_folders["nnUNet_preprocessed"] / NAME
    assert {path.name for path in preprocessed.iterdir()} == {
        "dataset.json",
        "dataset_fingerprint.json",
        "nnUNetPlans.json",
        "gt_segmentations",
    }
    assert FakePreprocessor.calls == [(17, "2d", "nnUNetPlans", 8), (17, "3d_fullres", "nnUNetPlans", 4)]
    for label in (raw_dataset / "labelsTr").iterdir():
        assert (preprocessed / "gt_segmentations" / label.name).read_bytes() == label.read_bytes()


def test_commands_run_one_after_the_other(raw_dataset, nnunet_folders):
    assert entry_points.extract_fingerprint_entry(["-d", "17", "-np", "1"]) == 0
    planning = ["-d", "17", "-pl", "nnUNetPlannerResEncM", "-overwrite_plans_name", "mine"]
    assert entry_points.plan_experiment_entry([*planning, "-overwrite_target_spacing", "3", "1", "1"]) == 0
    plans = json.loads((nnunet_folders["nnUNet_preprocessed"] / NAME / "mine.json").read_text())
    assert plans["configurations"]["3d_fullres"]["spacing"] == [3.0, 1.0, 1.0]
    assert entry_points.preprocess_entry(["-d", "17", "-plans_name", "mine", "-c", "2d", "-np", "3"]) == 0
    assert FakePreprocessor.calls == [(17, "2d", "mine", 3)]


def test_preprocessing_can_be_left_out(raw_dataset):
    assert entry_points.plan_and_preprocess_entry(["-d", "17", "--no_pp", "-npfp", "1"]) == 0
    assert FakePreprocessor.calls == []


def test_configurations_that_the_plans_lack_are_passed_over(raw_dataset):
    entry_points.plan_and_preprocess_entry(["-d", "17", "--no_pp", "-npfp", "1"])
    api.preprocess([17], configurations=("3d_lowres", "2d"), num_processes=[5, 6])
    assert FakePreprocessor.calls == [(17, "2d", "nnUNetPlans", 6)]


def test_references_are_copied_again_only_if_newer(raw_dataset, nnunet_folders):
    entry_points.plan_and_preprocess_entry(["-d", "17", "-npfp", "1", "-c", "2d"])
    source = raw_dataset / "labelsTr" / "case_0.nii.gz"
    copied = nnunet_folders["nnUNet_preprocessed"] / NAME / "gt_segmentations" / "case_0.nii.gz"
    copied.write_bytes(b"kept")
    os.utime(copied, (source.stat().st_mtime + 10,) * 2)
    api.preprocess([17], configurations=("2d",), num_processes=1)
    assert copied.read_bytes() == b"kept"
    os.utime(source, (copied.stat().st_mtime + 10,) * 2)
    api.preprocess([17], configurations=("2d",), num_processes=1)
    assert copied.read_bytes() == source.read_bytes()


def test_processes_for_preprocessing_depend_on_the_configuration():
    configurations = ["2d", "3d_fullres", "3d_lowres", "mine"]
    assert entry_points.processes_per_configuration(configurations, None) == [8, 4, 8, 4]
    assert entry_points.processes_per_configuration(configurations, [2]) == [2]


def test_numbers_of_processes_must_fit_the_configurations(raw_dataset):
    with pytest.raises(UsageError, match="2 numbers of processes were given for 3 configurations"):
        api.preprocess_dataset(17, num_processes=(1, 2))


def test_preprocessing_needs_plans(raw_dataset):
    with pytest.raises(UsageError, match="nnUNetPlans.json; run nnUNetv2_plan_experiment first"):
        api.preprocess_dataset(17)


@pytest.mark.parametrize(
    "entry",
    [
        entry_points.extract_fingerprint_entry,
        entry_points.plan_experiment_entry,
        entry_points.preprocess_entry,
        entry_points.plan_and_preprocess_entry,
    ],
)
def test_dataset_must_be_given_and_misspelt_flags_are_errors(entry, capsys):
    assert entry([]) == 2
    assert "error: No dataset was given" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        entry(["-d", "4", "--verify_datset"])
    assert stopped.value.code == 2


def test_unknown_classes_suggest_near_ones(raw_dataset, capsys):
    assert entry_points.extract_fingerprint_entry(["-d", "17", "-np", "1"]) == 0
    assert entry_points.plan_experiment_entry(["-d", "17", "-pl", "nnUNetPlannerResEncS"]) == 2
    assert "did you mean nnUNetPlannerResEnc" in capsys.readouterr().err
    assert entry_points.plan_experiment_entry(["-d", "17", "-preprocessor_name", "DefaultPreprocesor"]) == 2
    assert "did you mean DefaultPreprocessor" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["-preprocessor_name", "DefaultPreprocesor"], ["-pl", "Planner"], ["-overwrite_plans_name", "a/b"]]
)
def test_names_are_checked_before_fingerprint_and_plans(words, raw_dataset, nnunet_folders):
    assert entry_points.plan_and_preprocess_entry(["-d", "17", *words]) == 2
    assert not list(nnunet_folders["nnUNet_preprocessed"].iterdir())


def test_modules_with_commands_are_light():
    code = (
        "import sys\n"
        "import nnunetv2.experiment_planning.plan_and_preprocess_entrypoints\n"
        "import nnunetv2.evaluation.evaluate_entry_points\n"
        "print([name for name in ('torch', 'numpy', 'scipy', 'SimpleITK') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_planning_fingerprints_and_the_first_checks_of_archives_do_without_torch():
    code = (
        "import sys\n"
        "import nnunetv2.experiment_planning.plan_and_preprocess_api\n"
        "import nnunetv2.preprocessing.cropping.cropping\n"
        "import nnunetv2.imageio.reader_writer_registry\n"
        "import nnunetv2.preprocessing.resampling.default_resampling\n"
        "import nnunetv2.model_sharing.model_download\n"
        "import nnunetv2.model_sharing.model_export\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
