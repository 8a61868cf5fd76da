"""Beyond the list, 4: files with any entry replaced, removed or added give the project's own errors, in one line."""

from __future__ import annotations

import copy
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dinov3.utils.json_files import parse_json
from nnunetv2.errors import NNUNetError
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.inference.model_loading import load_trained_model
from nnunetv2.training.dataloading.splits import load_or_create_splits, select_fold
from nnunetv2.training.state.model_folder import run_folders
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tests.faults import volumes
from tests.faults.injection import times
from tests.training.tiny_dataset import CASES, DATASET_JSON, tiny_plans

_MEMORY = 2**30  # bytes that one file may cost

NASTY_TEXTS = ["", ".", "..", "../../escape", "/etc/passwd", "a\\b", "\0", "x" * 300, "\ud800", "os.system", "5", "é"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([2**31, 10**30, -1, 1e308, 0.5, float("nan"), float("inf")]),
    st.sampled_from(NASTY_TEXTS),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


def positions(content: Any, here: tuple = ()) -> Iterator[tuple]:
    """Paths to all entries of a JSON document."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        yield (*here, key)
        yield from positions(value, (*here, key))


@st.composite
def changed(draw: st.DrawFn, valid: Any) -> Any:
    """A document with one to three entries replaced, removed, or given another key."""
    content = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        places = list(positions(content))
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        parent = content
        for key in way:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "remove", "rename"]))
        if action == "replace":
            parent[last] = draw(VALUES)
        elif action == "remove":
            del parent[last]
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(NASTY_TEXTS))] = parent.pop(last)
    return content


def fuzzed(valid: Any, quick: int, whole: int) -> Callable:
    """Runs a test with changed documents: few in `make test`, many in `make faults`."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        limits = settings(
            max_examples=times(quick, whole),
            deadline=None,
            derandomize=os.environ.get("FAULTS") != "whole",
            database=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )
        return limits(given(content=st.one_of(VALUES, *[changed(valid)] * 9))(test))

    return decorate


def only_own_errors(action: Callable[[], object]) -> None:
    """Fails on errors of other classes, on messages of several lines or screens, and on a memory peak above 1 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        action()
    except NNUNetError as err:
        message = " ".join(str(err).split())
        assert 20 < len(message) < 2000, message
        json.dumps(message).encode()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < _MEMORY


@pytest.fixture(scope="module")
def raw_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / volumes.DATASET
    volumes.write_dataset(folder)
    for case in volumes.CASES[2:]:
        (folder / "imagesTr" / f"{case}_0000.nii.gz").unlink()
        (folder / "labelsTr" / f"{case}.nii.gz").unlink()
    return folder


DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
    "numTraining": 2,
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
    "dataset": {
        case: {"images": [f"imagesTr/{case}_0000.nii.gz"], "label": f"labelsTr/{case}.nii.gz"}
        for case in volumes.CASES[:2]
    },
}


@fuzzed(DESCRIPTION, quick=25, whole=300)
def test_dataset_json(content: Any, raw_dataset: Path) -> None:
    (raw_dataset / "dataset.json").write_text(json.dumps(content))
    only_own_errors(lambda: verify_dataset_integrity(str(raw_dataset), 1))


@fuzzed(tiny_plans(), quick=60, whole=1500)
def test_plans(content: Any, nnunet_folders: dict[str, Path]) -> None:
    path = nnunet_folders["nnUNet_preprocessed"] / "nnUNetPlans.json"
    path.write_text(json.dumps(content))
    only_own_errors(lambda: use_plans(path, nnunet_folders))


def use_plans(path: Path, folders: dict[str, Path]) -> None:
    """Everything that training and prediction read from plans."""
    plans = PlansManager(path)
    labels = plans.get_label_manager(DATASET_JSON)
    plans.image_reader_writer_class()
    _ = plans.transpose_forward, plans.transpose_backward, plans.foreground_intensity_properties_per_channel
    for name in plans.available_configurations:
        configuration = plans.get_configuration(name)
        for root, variable in (("dataset", "preprocessed"), ("cases", "preprocessed"), ("fold", "results")):
            found = Path(getattr(run_folders("nnUNetTrainer", plans, name, 0), root))
            assert found.resolve().is_relative_to(folders[f"nnUNet_{variable}"].resolve())
        _ = configuration.batch_size, configuration.patch_size, configuration.spacing, configuration.batch_dice
        _ = configuration.normalization_schemes, configuration.use_mask_for_norm, configuration.preprocessor_class
        _ = configuration.resampling_fn_data, configuration.resampling_fn_seg, configuration.resampling_fn_probabilities
        _ = configuration.next_stage_names, configuration.previous_stage_name
        get_network_from_plans(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            determine_num_input_channels(plans, configuration, DATASET_JSON),
            labels.num_segmentation_heads,
            deep_supervision=True,
        )


SPLITS = [{"train": CASES[:4], "val": CASES[4:]}, {"train": CASES[2:], "val": CASES[:2]}]


@fuzzed(SPLITS, quick=60, whole=1500)
def test_splits(content: Any, tmp_path: Path) -> None:
    (tmp_path / "splits_final.json").write_text(json.dumps(content))
    only_own_errors(lambda: select_fold(load_or_create_splits(tmp_path, CASES), 1, CASES))


FINGERPRINT = {
    "spacings": [[2.0, 1.0, 1.0], [2.5, 1.0, 1.0]],
    "shapes_after_crop": [[20, 40, 40], [24, 44, 40]],
    "median_relative_size_after_cropping": 0.8,
    "foreground_intensity_properties_per_channel": {
        "0": dict.fromkeys(("mean", "std", "median", "min", "max", "percentile_00_5", "percentile_99_5"), 1.5)
    },
}


@pytest.fixture
def planned_dataset(raw_dataset: Path, nnunet_folders: dict[str, Path]) -> Path:
    """The preprocessed folder of a raw dataset with the plain description."""
    raw = nnunet_folders["nnUNet_raw"] / volumes.DATASET
    raw.symlink_to(raw_dataset)
    (raw_dataset / "dataset.json").write_text(json.dumps(DESCRIPTION))
    preprocessed = nnunet_folders["nnUNet_preprocessed"] / volumes.DATASET
    preprocessed.mkdir()
    return preprocessed


@fuzzed(FINGERPRINT, quick=30, whole=400)
def test_fingerprint(content: Any, planned_dataset: Path) -> None:
    (planned_dataset / "dataset_fingerprint.json").write_text(json.dumps(content))
    only_own_errors(lambda: ExperimentPlanner(volumes.DATASET).plan_experiment())


CHECKPOINT = {
    "trainer_name": "nnUNetTrainer",
    "init_args": {"configuration": "2d", "fold": 0},
    "inference_allowed_mirroring_axes": [0, 1],
    "network_weights": {"a": 1},
    "current_epoch": 3,
}


@fuzzed(CHECKPOINT, quick=40, whole=400)
def test_metadata_of_checkpoints(content: Any, tmp_path: Path) -> None:
    fold = tmp_path / "fold_0"
    fold.mkdir(exist_ok=True)
    (tmp_path / "plans.json").write_text(json.dumps(tiny_plans()))
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    torch.save(content, fold / "checkpoint_final.pth")
    only_own_errors(lambda: load_trained_model(tmp_path, (0,), "checkpoint_final.pth"))


@settings(max_examples=times(200, 3000), deadline=None, derandomize=True, database=None)
@given(raw=st.one_of(st.binary(max_size=40), st.text(alphabet='[]{}",:\\01 tn.e-', max_size=40).map(str.encode)))
def test_bytes(raw: bytes) -> None:
    only_own_errors(lambda: parse_json(raw, "a file somewhere"))
