"""Weights of nnssl's checkpoints in networks of other channels, patches, depth and kernels: as upstream loads them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunetv2.errors import DataError, UsageError
from nnunetv2.pretraining.named_networks import get_network_from_name, network_of_plans
from nnunetv2.pretraining.nnssl_checkpoint import NNSSLCheckpoint, read_nnssl_checkpoint
from nnunetv2.pretraining.weight_transfer import (
    Target,
    resize_position_embedding,
    spread_over_channels,
    transfer_weights,
)

LOADED = ["cnn_1ch", "cnn_2ch", "primus_1ch_other_patch", "primus_2ch_other_patch", "primus_same_patch",
          "dynamic_deeper_thin_kernels", "dynamic_deeper_2ch", "dynamic_shallower"]  # fmt: skip
REFUSED = {
    "dynamic_default_base_plan": "No weight of the checkpoint's encoder fits this network, whose encoder begins with",
    "dynamic_other_widths": "No weight of the checkpoint's encoder fits this network, whose encoder begins with",
    "fixed_trainer_on_dynamic_plan": "The checkpoint does not fit this network: encoder.stages.4.* is missing",
    "primus_plan_with_cnn_trainer": "The plans describe the network PrimusX, and this trainer is for PlainConvUNet",
    "cnn_plan_with_primusx_trainer": "The plans describe no Primus: their architecture has no embed_dim",
}


@pytest.fixture(scope="module")
def recorded(oracle_recorded: Path) -> Path:
    return oracle_recorded / "nnssl"


def case_of(recorded: Path, name: str) -> tuple[dict[str, Any], nn.Module, NNSSLCheckpoint, Target]:
    """What was recorded of a case, its network, the checkpoint and what the network needs."""
    case = json.loads((recorded / "loading.json").read_text())[name]
    plans = json.loads((recorded / "plans" / f"{case['dataset']}__{case['plans']}.json").read_text())
    configuration, info = plans["configurations"]["3d_fullres"], plans["pretrain_info"]
    patch_size = case["changes"].get("patch_size", configuration["patch_size"])
    channels, architecture = {902: 1, 903: 2}[case["dataset"]], configuration["architecture"]
    torch.manual_seed(0)
    network = network_of_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        input_channels=channels,
        output_channels=3,
        patch_size=patch_size,
        is_primus="Primus" in case["trainer"],
    )
    kind = "primus" if Path(info["checkpoint_path"]).stem == "primus" else "cnn"
    checkpoint = read_nnssl_checkpoint(recorded / "checkpoints" / f"{kind}.pth")
    keys = network.key_to_encoder, network.key_to_stem, getattr(network, "key_to_lpe", None)
    return case, network, checkpoint, Target(*keys, channels, tuple(patch_size))


@pytest.mark.oracle
@pytest.mark.parametrize("name", LOADED)
def test_each_tensor_is_what_upstream_made_of_it(recorded: Path, name: str) -> None:
    case, network, checkpoint, target = case_of(recorded, name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    transfer = transfer_weights(network, target, checkpoint, adapts="Dynamic" in case["trainer"])
    state, shared = network.state_dict(), {"mask_token"}  # zeros everywhere, which the recording calls copied
    wanted = {kind: set(case["parameters"].get(kind, ())) - shared for kind in ("copied", "transformed", "random")}
    assert set(transfer.copied) - shared - aliases(state) == wanted["copied"] - aliases(state)
    assert set(transfer.adapted) - aliases(state) == wanted["transformed"] - aliases(state)
    assert all(torch.equal(state[key], before[key]) for key in wanted["random"])
    for key, (shape, total, size) in {
        **case["parameters"].get("copied", {}),
        **case["parameters"].get("transformed", {}),
    }.items():
        assert list(state[key].shape) == shape
        assert float(state[key].double().sum()) == pytest.approx(total, abs=2e-5)
        assert float(state[key].double().abs().sum()) == pytest.approx(size, abs=2e-5)
    tensors = np.load(recorded / "loaded_tensors.npz")
    mine = [key for key in tensors.files if key.startswith(f"{name}/")]
    assert bool(mine) == bool(wanted["transformed"])
    for key in mine:
        torch.testing.assert_close(state[key.partition("/")[2]], torch.from_numpy(tensors[key]), rtol=0, atol=1e-6)


def aliases(state: dict[str, Tensor]) -> set[str]:
    """Second names of tensors: of layers within their blocks, and of the encoder within the decoder."""
    return {name for name in state if name.startswith("decoder.encoder.") or ".all_modules." in name}


@pytest.mark.oracle
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(recorded: Path, name: str) -> None:
    with pytest.raises((DataError, UsageError)) as caught:
        case, network, checkpoint, target = case_of(recorded, name)
        transfer_weights(network, target, checkpoint, adapts="Dynamic" in case["trainer"])
    start, _, end = REFUSED[name].partition("*")
    assert str(caught.value).startswith(start)
    assert end in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["ResEncL", "PrimusS", "PrimusB", "PrimusM", "PrimusL"])
def test_presets_have_upstreams_names_and_shapes(recorded: Path, name: str) -> None:
    expected = json.loads((recorded / "presets.json").read_text())[name]
    with torch.device("meta"):
        network = get_network_from_name(name, 1, 3, input_patchsize=(32, 32, 32), allow_init=False)
    state = network.state_dict()
    assert sum(parameter.numel() for parameter in network.parameters()) == expected["parameters"]
    listed = json.dumps([[key, list(value.shape)] for key, value in state.items()])
    assert hashlib.sha256(listed.encode()).hexdigest() == expected["keys_and_shapes_sha256"]


def test_an_unknown_preset_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="no network of the name Nothing; known are ResEncL, PrimusS"):
        get_network_from_name("Nothing", 1, 3)


@pytest.mark.parametrize("patch_size", [None, (32, 32, 36), (32, 32)])
def test_primus_needs_a_patch_of_whole_tokens(patch_size: tuple[int, ...] | None) -> None:
    with pytest.raises(UsageError, match="Primus"):
        get_network_from_name("PrimusS", 1, 3, patch_size)


def test_the_response_to_equal_channels_is_that_to_one(seeded: int) -> None:
    weight, image = torch.randn(4, 1, 3, 3, 3), torch.randn(2, 1, 5, 6, 7)
    spread = spread_over_channels(weight, 1, 3)
    expected = torch.conv3d(image, weight)
    torch.testing.assert_close(torch.conv3d(image.expand(-1, 3, -1, -1, -1), spread), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="trained on 2 channels, and the dataset has 3"):
        spread_over_channels(torch.randn(4, 2, 3, 3, 3), 2, 3)


def test_a_linear_embedding_stays_linear_when_resized() -> None:
    grid = torch.stack(torch.meshgrid(*(torch.arange(4.0) + 0.5 for _ in range(3)), indexing="ij"), dim=-1) / 4
    resized = resize_position_embedding(grid.flatten(0, 2)[None], (4, 4, 4), (4, 4, 8))
    z, y, x = resized[0].unflatten(0, (4, 4, 8)).unbind(-1)
    torch.testing.assert_close(x[0, 0, 1:-1], (torch.arange(1, 7) + 0.5) / 8)
    torch.testing.assert_close(z[:, 0, 0], (torch.arange(4) + 0.5) / 4)
    torch.testing.assert_close(y[0, :, 0], (torch.arange(4) + 0.5) / 4)
