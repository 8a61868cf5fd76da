import copy
import json
import sys

import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.model.build import build_network
from nnunetv2.utilities.checkpoint_io import load_checkpoint
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
TINY = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "kernel_sizes": [[3, 3], [3, 3]],
    "strides": [[1, 1], [2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
TO_IMPORT = ["conv_op", "norm_op", "dropout_op", "nonlin"]


def test_network_has_the_asked_inputs_and_outputs():
    keywords = copy.deepcopy(TINY)
    network = build_network(UNET, keywords, TO_IMPORT, 3, 5, deep_supervision=False)
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 5, 8, 8)
    assert keywords == TINY


def test_upstreams_front_builds_the_same_network():
    network = get_network_from_plans(
        arch_class_name=UNET,
        arch_kwargs=TINY,
        arch_kwargs_req_import=TO_IMPORT,
        input_channels=1,
        output_channels=2,
        allow_init=True,
        deep_supervision=True,
    )
    outputs = network(torch.zeros(1, 1, 8, 8))
    assert [tuple(output.shape) for output in outputs] == [(1, 2, 8, 8)]


@pytest.mark.parametrize("allow_init", [True, False])
def test_initialisation_is_applied_on_demand(seeded, allow_init):
    network = build_network(UNET, TINY, TO_IMPORT, 1, 2, allow_init=allow_init)
    biases = [value for name, value in network.named_parameters() if name.endswith("conv.bias")]
    assert all(bool((bias == 0).all()) for bias in biases) is allow_init


def test_network_that_has_moved_is_found(caplog):
    moved = "dynamic_network_architectures.architectures.residual_unet.PlainConvUNet"
    network = build_network(moved, TINY, TO_IMPORT, 1, 2)
    assert type(network).__name__ == "PlainConvUNet"
    assert "has moved; using dynamic_network_architectures.architectures.unet.PlainConvUNet" in caplog.text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "dynamic_network_architectures.architectures.unet.PlainConvUnet",
            "does not exist; .*did you mean PlainConvUNet",
        ),
        ("os.system", "'os.system' was not imported"),
        ("torch.hub.load", "'torch.hub.load' was not imported"),
        ("builtins.exec", "'builtins.exec' was not imported"),
        ("torch.nn.functional.gelu", "as network, which is not a torch.nn.Module"),
    ],
)
def test_other_networks_are_refused(path, message):
    with pytest.raises(DataError, match=message):
        build_network(path, {}, [], 1, 2)


def test_arguments_are_refused_before_import(tmp_path, monkeypatch):
    (tmp_path / "evil_argument.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match="'evil_argument.Conv' was not imported"):
        build_network(UNET, {**TINY, "conv_op": "evil_argument.Conv"}, TO_IMPORT, 1, 2)
    assert "evil_argument" not in sys.modules


def test_argument_that_does_not_exist_is_named():
    with pytest.raises(DataError, match="names 'torch.nn.LeakyRelu' as nonlin, which does not exist"):
        build_network(UNET, {**TINY, "nonlin": "torch.nn.LeakyRelu"}, TO_IMPORT, 1, 2)


def test_functions_that_write_files_are_no_nonlinearities(tmp_path):
    target = tmp_path / "written.json"
    keywords = {
        **TINY,
        "nonlin": "dinov3.utils.atomic_files.write_json",
        "nonlin_kwargs": {"content": "x", "path": str(target)},
    }
    with pytest.raises(DataError, match="was not used"):
        build_network(UNET, keywords, TO_IMPORT, 1, 2)
    assert not target.exists()


@pytest.mark.oracle
def test_every_recorded_architecture_can_be_built(oracle_recorded):
    architectures = {}
    for path in oracle_recorded.glob("*_plans/*/nnUNet*Plans.json"):
        manager = PlansManager(path)
        for name in manager.available_configurations:
            configuration = manager.get_configuration(name)
            architectures[json.dumps(configuration.configuration["architecture"])] = len(configuration.patch_size)
    assert len(architectures) > 10
    for text, num_axes in architectures.items():
        entry = json.loads(text)
        with torch.device("meta"):
            network = build_network(
                entry["network_class_name"],
                entry["arch_kwargs"],
                entry["_kw_requires_import"],
                input_channels=2,
                output_channels=3,
                allow_init=False,
                deep_supervision=False,
            )
        heads = [
            value for name, value in network.named_parameters() if "seg_layers" in name and name.endswith("weight")
        ]
        assert {tuple(head.shape[::2][:1]) for head in heads} == {(3,)}
        assert heads[0].ndim == num_axes + 2


@pytest.mark.oracle
def test_upstream_checkpoints_fit_strictly(oracle_recorded):
    folders = list(oracle_recorded.glob("results/*/*"))
    assert folders
    for folder in folders:
        plans = PlansManager(folder / "plans.json")
        dataset_json = json.loads((folder / "dataset.json").read_text())
        configuration = plans.get_configuration(folder.name.split("__")[-1])
        network = build_network(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            determine_num_input_channels(plans, configuration, dataset_json),
            plans.get_label_manager(dataset_json).num_segmentation_heads,
            deep_supervision=True,
        )
        network.load_state_dict(
            load_checkpoint(folder / "fold_0" / "checkpoint_final.pth")["network_weights"], strict=True
        )
