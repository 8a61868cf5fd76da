"""Dense heads on volumes: at first the 2-D network slice by slice, whatever is added later."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.head_config import head_config_class
from nnunetv2.training.nnUNetTrainer.any_head_config import load_any_head_config
from tests.model.heads.small import HEADS, small_architecture, small_network, small_words

DENSE = [head for head in HEADS if head_config_class(head).kind == "dense"]
SIZE = (64, 56)  # 56 is no multiple of 16: the slices are padded


def pair(head: str, channels: int = 1, fusion: str = "conv", **settings: Any) -> tuple[nn.Module, nn.Module]:
    """A network for images and one for volumes with the same weights, and new adapters between the slices."""
    torch.manual_seed(0)
    flat = small_network(head, channels=channels, **settings).eval()
    of_volumes = {"num_axes": 3, "slice_input": "single", "fusion": fusion}
    volumetric = small_network(head, channels=channels, **of_volumes, **settings).eval()
    missing = volumetric.load_state_dict(flat.state_dict(), strict=False).missing_keys
    assert missing
    assert all(name.startswith("fusion.") for name in missing)
    return flat, volumetric


def volume(depth: int, channels: int = 1, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, depth, *SIZE, generator=torch.Generator().manual_seed(depth))


def slice_by_slice(network: nn.Module, volumes: Tensor) -> Tensor:
    return torch.stack([network(volumes[:, :, z]) for z in range(volumes.shape[2])], dim=2)


@torch.no_grad()
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
@pytest.mark.parametrize("head", DENSE)
def test_a_new_network_for_volumes_is_the_one_for_images_slice_by_slice(head: str, tuning: str) -> None:
    flat, volumetric = pair(head, tuning=tuning)
    for depth in (1, 3, 9):  # 9 slices are encoded in two chunks
        expected = slice_by_slice(flat, volume(depth))
        torch.testing.assert_close(volumetric(volume(depth)), expected, rtol=0, atol=1e-5 * expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("fusion", ["conv", "attention"])
def test_any_number_of_channels_and_either_adapter(channels: int, fusion: str) -> None:
    flat, volumetric = pair("segformer", channels, fusion, tuning="frozen")
    expected = slice_by_slice(flat, volume(3, channels))
    torch.testing.assert_close(volumetric(volume(3, channels)), expected, rtol=0, atol=1e-5 * expected.abs().max())


@torch.no_grad()
def test_neighbours_make_no_difference_where_all_slices_are_equal() -> None:
    flat, _ = pair("segformer", tuning="frozen")
    seeing = small_network("segformer", num_axes=3, tuning="frozen").eval()
    assert seeing.sees_neighbours
    seeing.load_state_dict(flat.state_dict(), strict=False)
    constant = volume(1).expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(seeing(constant), slice_by_slice(flat, constant))
    torch.testing.assert_close(seeing(volume(1)[:, :, 0]), flat(volume(1)[:, :, 0]))  # an image is one slice
    varying = volume(4)
    assert not torch.allclose(seeing(varying), slice_by_slice(flat, varying), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("head", DENSE)
def test_after_a_training_slices_see_their_neighbours_and_no_other_volume(head: str) -> None:
    """Two adapters of each map reach two slices to each side; in a volume of 7, slice 6 is out of reach of slice 2."""
    torch.manual_seed(0)
    network = small_network(head, num_axes=3, slice_input="single", tuning="frozen").eval()
    for parameter in network.fusion.parameters():
        parameter.normal_(std=0.2)
    volumes = volume(7)
    result = network(volumes)
    torch.testing.assert_close(result, torch.cat([network(one[None]) for one in volumes]), rtol=1e-4, atol=1e-5)
    changed = volumes.clone()
    changed[0, :, 2] += 1
    differing = (network(changed) - result).abs().amax(dim=(1, 3, 4)) > 1e-4
    assert differing.tolist() == [[True] * 5 + [False] * 2, [False] * 7]


@torch.no_grad()
def test_without_adapters_slices_stay_apart() -> None:
    network = small_network("segformer", num_axes=3, slice_input="single", fusion="none", tuning="frozen").eval()
    assert network.fusion is None
    order, volumes = torch.tensor([3, 0, 2, 1]), volume(4)
    torch.testing.assert_close(network(volumes[:, :, order]), network(volumes)[:, :, order])


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_chunks_do_not_change_the_features_of_a_frozen_backbone(chunk: int) -> None:
    torch.manual_seed(0)
    network = small_network("segformer", num_axes=3, tuning="frozen").eval()
    expected = network(volume(4))
    calls = []
    network.encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    read = network.encoder.read_blocks
    network.encoder.read_blocks = lambda x, *args, **named: calls.append(len(x)) or read(x, *args, **named)
    network.slices_per_chunk = chunk
    torch.testing.assert_close(network(volume(4)), expected, rtol=1e-5, atol=1e-5)
    assert sum(calls) == 8  # two volumes of four slices
    assert max(calls) == chunk


def test_chunks_of_a_trained_backbone_are_encoded_again_and_have_the_same_gradients() -> None:
    gradients, calls = {}, {}
    for chunk in (None, 3):
        torch.manual_seed(0)
        network = small_network("segformer", num_axes=3, tuning="lora").eval()
        network.slices_per_chunk = chunk
        read, number = network.encoder.read_blocks, []
        network.encoder.read_blocks = lambda x, *args, read=read, number=number, **named: (
            number.append(len(x)) or read(x, *args, **named)
        )
        network(volume(4)).square().mean().backward()
        gradients[chunk] = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        calls[chunk] = number
    assert calls == {None: [8], 3: [3, 3, 2, 2, 3, 3]}
    assert any("lora" in name for name in gradients[3])
    for name, gradient in gradients[None].items():
        torch.testing.assert_close(gradients[3][name], gradient, rtol=1e-4, atol=1e-7)


def test_plans_of_images_have_no_word_of_volumes() -> None:
    names = {"slice_input", "fusion", "fusion_dim", "fusion_layers", "slices_per_chunk", "context_slices"}
    flat = small_architecture("segformer")["arch_kwargs"]
    assert not names & flat.keys()
    volumetric = small_architecture("segformer", num_axes=3)["arch_kwargs"]
    assert {name: value for name, value in volumetric.items() if name not in flat} == {
        "slice_input": "neighbours",
        "fusion": "conv",
        "fusion_dim": 64,
        "fusion_layers": 2,
    }
    assert small_architecture("segformer", num_axes=3, channels=4)["arch_kwargs"]["slice_input"] == "single"
    assert json.dumps(volumetric)


def refusal(*words: str, num_axes: int = 3, num_channels: int = 1) -> str:
    with pytest.raises(UsageError) as caught:
        config = load_any_head_config(None, [*small_words("segformer"), *words])
        config.architecture(regions=False, num_axes=num_axes, num_channels=num_channels)
    return str(caught.value)


def test_unfit_settings_are_refused() -> None:
    assert "model.fusion=conv: for 3-D patches, and this configuration has 2-D ones" in refusal(
        "model.fusion=conv", num_axes=2
    )
    assert "model.slice_input=neighbours is for images of one channel, and these have 4" in refusal(
        "model.slice_input=neighbours", num_channels=4
    )
    assert "model.fusion" in refusal("model.fusion=lstm")
    assert "model.slices_per_chunk" in refusal("model.slices_per_chunk=0")


def test_patches_have_as_many_axes_as_those_of_the_plans() -> None:
    config = load_any_head_config(None, [*small_words("segformer"), "training.patch_size=[64,64]"])
    with pytest.raises(UsageError, match=r"has 2 axes, and the patch of the plans, \[8, 64, 64\], has 3"):
        config.patch_size([8, 64, 64], None)
    enlarged = load_any_head_config(None, [*small_words("segformer"), "model.input_scale=4"])
    assert enlarged.patch_size([2000, 512, 512], None) == [2000, 256, 256]  # slices are not enlarged
