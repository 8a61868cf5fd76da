"""Plans of every planner and of every option, key by key as upstream's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.feature_map_size import PLAIN_CONV_UNET, RESIDUAL_ENCODER_UNET
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset
from nnunetv2.utilities.class_lookup import find_by_name
from tests.experiment_planning.test_experiment_planner import NAME, PLANNERS, prepare

RECORDINGS = Path(__file__).parents[1] / "recorded"
CASES = json.loads((RECORDINGS / "planning_plans.json").read_text())
PACKAGE = "nnunetv2.experiment_planning.experiment_planners"


def recorded_plans() -> list[dict[str, Any]]:
    """The entries of planner_plans.json with what they share put back."""
    content = json.loads((RECORDINGS / "planner_plans.json").read_text())
    for entry in content["recorded"]:
        for configuration in entry["plans"]["configurations"].values():
            for part, table in content["tables"].items():
                if part in configuration:
                    configuration.update(table[configuration.pop(part)])
        intensities = CASES[entry["case"]]["fingerprint"]["foreground_intensity_properties_per_channel"]
        entry["plans"]["foreground_intensity_properties_per_channel"] = intensities
    return content["recorded"]


def differences(ours: Any, theirs: Any, path: str = "plans") -> Iterator[str]:
    """Every key that differs; a number and its type must be the same."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() | theirs.keys():
            if key not in ours or key not in theirs:
                yield f"{path}.{key} is only {'there' if key not in ours else 'here'}"
            else:
                yield from differences(ours[key], theirs[key], f"{path}.{key}")
    elif json.dumps(ours) != json.dumps(theirs):
        yield f"{path} is {ours}, upstream's {theirs}"


@pytest.fixture
def prepared(nnunet_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Preprocessed folder of each recorded fingerprint, by its name; `nnUNet_*` name the roots of the last one."""
    folders = {}
    for name, case in CASES.items():
        roots = {variable: tmp_path / name / variable for variable in ("nnUNet_raw", "nnUNet_preprocessed")}
        for root in roots.values():
            root.mkdir(parents=True)
        folders[name] = prepare(roots, NAME, case["dataset_json"], case["fingerprint"])
    return folders


@pytest.mark.slow
def test_every_planner_and_option_gives_upstreams_plans(
    prepared: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recorded, equal = recorded_plans(), 0
    for entry in recorded:
        monkeypatch.setenv("nnUNet_preprocessed", str(prepared[entry["case"]].parent))
        monkeypatch.setenv("nnUNet_raw", str(prepared[entry["case"]].parents[1] / "nnUNet_raw"))
        planner = getattr(importlib.import_module(f"{PACKAGE}.{entry['module']}"), entry["planner"])
        plans, name = plan_experiment_dataset(18, planner, **entry["options"])
        written = json.loads((prepared[entry["case"]] / f"{name}.json").read_text())
        (prepared[entry["case"]] / f"{name}.json").unlink()
        found = list(differences(written, entry["plans"]))
        assert not found, (entry["case"], entry["planner"], entry["options"], found)
        assert list(written) == [*_upstreams_order(entry["plans"])]
        assert plans == written
        equal += 1
    with capsys.disabled():
        print(f"\nplans of all planners equal upstream's: {equal} of {len(recorded)}")
    assert equal == 40
    assert len({(entry["module"], entry["planner"]) for entry in recorded}) == 10


def _upstreams_order(plans: dict[str, Any]) -> Iterator[str]:
    """The recording leaves out the intensities, which are the last key."""
    yield from (key for key in plans if key != "foreground_intensity_properties_per_channel")
    yield "foreground_intensity_properties_per_channel"


def test_recordings_cover_all_planners_of_the_package() -> None:
    folder = Path(importlib.import_module(PACKAGE).__file__).parent
    ours = {
        name
        for path in folder.rglob("*.py")
        for name, value in vars(importlib.import_module(_module(path, folder))).items()
        if isinstance(value, type) and issubclass(value, ExperimentPlanner)
    }
    assert ours == {entry["planner"] for entry in recorded_plans()}
    assert {PLANNERS[name] for name in PLANNERS} <= ours


def _module(path: Path, folder: Path) -> str:
    return ".".join([PACKAGE, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")


class PlannerAsUsersWriteThem(ExperimentPlanner):
    """Upstream's constructor with its defaults, attributes set after `super().__init__`, hooks overridden."""

    def __init__(
        self,
        dataset_name_or_id,
        gpu_memory_target_in_gb: float = 8,
        preprocessor_name: str = "DefaultPreprocessor",
        plans_name: str = "nnUNetPlansOfMine",
        overwrite_target_spacing=None,
        suppress_transpose: bool = False,
    ):
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            preprocessor_name,
            plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )
        self.UNet_base_num_features = 16
        self.UNet_max_features_3d = 64
        self.UNet_min_batch_size = 3
        self.lowres_creation_threshold = 0  # no low-resolution stage

    def generate_data_identifier(self, configuration_name):
        return "shared_" + configuration_name

    def get_plans_for_configuration(self, spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache):
        plan = super().get_plans_for_configuration(
            spacing, median_shape, data_identifier, approximate_n_voxels_dataset, _cache
        )
        _, strides, kernels, patch_size, _ = get_pool_and_conv_props(spacing, [32] * len(spacing), 4, 999999)
        features = [self.UNet_base_num_features] * len(strides)
        network_class = self.UNet_class.__module__ + "." + self.UNet_class.__name__
        plan["architecture"]["network_class_name"] = network_class
        plan["architecture"]["arch_kwargs"].update(
            n_stages=len(strides), strides=strides, kernel_sizes=kernels, features_per_stage=features
        )
        return {**plan, "patch_size": patch_size}


def test_planner_that_was_written_for_upstream(prepared: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepared["large_anisotropic_ct"]
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    monkeypatch.setenv("nnUNet_raw", str(folder.parents[1] / "nnUNet_raw"))
    plans, name = plan_experiment_dataset(18, PlannerAsUsersWriteThem, preprocess_class_name="MyPreprocessor")
    assert name == "nnUNetPlansOfMine"
    assert plans["experiment_planner_used"] == "PlannerAsUsersWriteThem"
    assert list(plans["configurations"]) == ["2d", "3d_fullres"]
    fullres = plans["configurations"]["3d_fullres"]
    assert fullres["patch_size"] == [32, 32, 32]
    assert fullres["data_identifier"] == "shared_3d_fullres"
    assert fullres["preprocessor_name"] == "MyPreprocessor"
    assert fullres["architecture"]["network_class_name"].endswith("architectures.unet.PlainConvUNet")
    assert fullres["architecture"]["arch_kwargs"]["features_per_stage"] == [16] * 4
    assert plans["configurations"]["2d"]["batch_size"] >= 3


@pytest.mark.parametrize("name", [PLAIN_CONV_UNET, RESIDUAL_ENCODER_UNET])
def test_network_names_are_those_of_the_classes(name: str) -> None:
    network = find_by_name("network architecture", name.__name__)
    assert (name.__module__, name.__name__) == (network.__module__, network.__name__)
    assert name == f"{network.__module__}.{network.__name__}"
