import copy
import functools
import json
import pickle
import subprocess
import sys

import pytest

from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling import plans_handler
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from tests.recorded.make_utilities_imageio import OLD_CONFIGURATION
from tests.utilities.recorded_answers import recorded

ARCHITECTURE = {
    "network_class_name": "package.Net",
    "arch_kwargs": {"strides": [[1, 1], [2, 2]]},
    "_kw_requires_import": ["conv_op"],
}


@pytest.fixture
def plans() -> dict:
    return {
        "plans_name": "nnUNetPlans",
        "dataset_name": "Dataset001_X",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "configurations": {
            "base": {"batch_size": 2, "patch_size": [64, 64], "architecture": ARCHITECTURE},
            "larger": {"inherits_from": "base", "batch_size": 12},
            "largest": {"inherits_from": "larger", "patch_size": [128, 128], "next_stage": "final"},
        },
    }


def test_configuration_inherits_through_generations(plans):
    configuration = PlansManager(plans).get_configuration("largest")
    assert configuration.batch_size == 12
    assert configuration.patch_size == [128, 128]
    assert configuration.network_arch_class_name == "package.Net"
    assert configuration.network_arch_init_kwargs_req_import == ["conv_op"]
    assert configuration.pool_op_kernel_sizes == [[1, 1], [2, 2]]


def test_child_replaces_the_architecture_as_a_whole(plans):
    plans["configurations"]["larger"]["architecture"] = {"network_class_name": "other.Net"}
    configuration = PlansManager(plans).get_configuration("larger")
    assert configuration.configuration["architecture"] == {"network_class_name": "other.Net"}


def test_given_plans_are_never_changed(plans):
    before = copy.deepcopy(plans)
    manager = PlansManager(plans)
    manager.get_configuration("largest").configuration["batch_size"] = 99
    manager.get_configuration("largest").configuration["architecture"]["arch_kwargs"]["n_stages"] = 1
    assert plans == before


def test_configuration_is_the_same_object_each_time(plans):
    manager = PlansManager(plans)
    assert manager.get_configuration("base") is manager.get_configuration("base")


def test_plans_come_from_a_file_too(plans, tmp_path):
    path = tmp_path / "plans.json"
    path.write_text(json.dumps(plans))
    assert PlansManager(path).plans == plans
    assert PlansManager(str(path)).available_configurations == ["base", "larger", "largest"]


def test_unknown_configuration_lists_the_known_and_the_nearest(plans):
    with pytest.raises(
        UsageError, match="'nnUNetPlans' have no configuration 'larget'; they have base, larger, largest; did you mean"
    ):
        PlansManager(plans).get_configuration("larget")


def test_inheriting_in_a_circle_is_refused(plans):
    plans["configurations"]["base"]["inherits_from"] = "largest"
    with pytest.raises(DataError, match="in a circle .largest -> larger -> base -> largest."):
        PlansManager(plans).get_configuration("largest")


def test_inheriting_from_itself_is_refused(plans):
    plans["configurations"]["base"]["inherits_from"] = "base"
    with pytest.raises(DataError, match="base -> base"):
        PlansManager(plans).get_configuration("base")


def test_missing_key_is_named(plans):
    with pytest.raises(
        DataError, match="This configuration of the plans has no key 'spacing'; its keys are batch_size"
    ):
        _ = PlansManager(plans).get_configuration("base").spacing
    with pytest.raises(DataError, match="The plans has no key 'transpose_forward'"):
        _ = PlansManager(plans).transpose_forward


@pytest.mark.parametrize(("entry", "names"), [("a", ["a"]), (["a", "b"], ["a", "b"]), (None, None)])
def test_next_stage_names_are_a_list(entry, names):
    assert ConfigurationManager({"architecture": {}, "next_stage": entry}).next_stage_names == names


def test_old_configuration_gets_upstreams_architecture():
    old = copy.deepcopy(OLD_CONFIGURATION)
    assert ConfigurationManager(old).configuration == recorded("old_configuration")
    assert old == OLD_CONFIGURATION


def test_old_residual_encoder_counts_blocks():
    old = {**OLD_CONFIGURATION, "UNet_class_name": "ResidualEncoderUNet", "patch_size": [64, 64]}
    architecture = ConfigurationManager(old).configuration["architecture"]
    assert architecture["network_class_name"].endswith("ResidualEncoderUNet")
    assert architecture["arch_kwargs"]["n_blocks_per_stage"] == [2] * 6
    assert architecture["arch_kwargs"]["conv_op"] == "torch.nn.modules.conv.Conv2d"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({}, "UNet_class_name is None"),
        ({"UNet_class_name": "MyNet"}, "UNet_class_name is 'MyNet' .known: PlainConvUNet"),
    ],
)
def test_unknown_old_network_is_refused(broken, message):
    with pytest.raises(DataError, match=message):
        ConfigurationManager(broken)


def test_incomplete_old_configuration_names_the_missing_key():
    old = {key: value for key, value in OLD_CONFIGURATION.items() if key != "conv_kernel_sizes"}
    with pytest.raises(DataError, match="lack the key 'conv_kernel_sizes' of PlainConvUNet"):
        ConfigurationManager(old)


def test_named_classes_are_found(plans):
    manager = PlansManager(plans)
    assert manager.image_reader_writer_class is SimpleITKIO
    assert manager.label_manager_class is LabelManager
    label_manager = manager.get_label_manager({"labels": {"background": 0, "a": [1, 2]}}, force_use_labels=True)
    assert label_manager.all_labels == [0, 1, 2]


def test_dataset_without_labels_is_refused(plans):
    with pytest.raises(DataError, match="dataset.json has no key 'labels'"):
        PlansManager(plans).get_label_manager({"channel_names": {}})


def test_resampling_function_is_bound_to_its_keywords_and_found_once(monkeypatch):
    calls = []

    def find(kind, name):
        calls.append((kind, name))
        return lambda **keywords: keywords

    monkeypatch.setattr(plans_handler, "find_by_name", find)
    manager = ConfigurationManager(
        {"architecture": {}, "resampling_fn_data": "resample", "resampling_fn_data_kwargs": {"order": 3}}
    )
    assert isinstance(manager.resampling_fn_data, functools.partial)
    assert manager.resampling_fn_data() == {"order": 3}
    assert manager.resampling_fn_data is manager.resampling_fn_data
    assert calls == [("resampling function", "resample")]


def test_intensity_properties_may_have_their_older_name():
    assert PlansManager(
        {"foreground_intensity_properties_by_modality": {"0": {}}}
    ).foreground_intensity_properties_per_channel
    older, newer = {"0": {"mean": 1}}, {"0": {"mean": 2}}
    both = {"foreground_intensity_properties_by_modality": older, "foreground_intensity_properties_per_channel": newer}
    assert PlansManager(both).foreground_intensity_properties_per_channel == newer
    with pytest.raises(DataError, match="foreground_intensity_properties_per_channel"):
        _ = PlansManager({}).foreground_intensity_properties_per_channel


def test_managers_travel_to_other_processes(plans):
    manager = PlansManager(plans)
    configuration = manager.get_configuration("base")
    assert pickle.loads(pickle.dumps(configuration)).configuration == configuration.configuration
    assert pickle.loads(pickle.dumps(manager)).plans == plans


def test_reading_plans_does_not_import_torch():
    code = "import sys, nnunetv2.utilities.plans_handling.plans_handler as _; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.oracle
def test_every_recorded_plans_file_is_understood(oracle_recorded):
    paths = [
        *oracle_recorded.glob("*_plans/*/nnUNet*Plans.json"),
        *oracle_recorded.glob("preprocessed/*/nnUNet*Plans.json"),
    ]
    assert paths
    for path in paths:
        manager = PlansManager(path)
        dataset_json = json.loads(path.with_name("dataset.json").read_text())
        heads = manager.get_label_manager(dataset_json).num_segmentation_heads
        assert heads == {"901": 3, "902": 3, "903": 3, "904": 2}[manager.dataset_name[7:10]]
        for name in manager.available_configurations:
            configuration = manager.get_configuration(name)
            assert (
                len(configuration.patch_size)
                == len(configuration.spacing)
                == len(configuration.pool_op_kernel_sizes[0])
            )
            assert configuration.previous_stage_name in (None, "3d_lowres")
