"""Primus: equal to the origin fork's decoder and to upstream's, sizes, initialisation, patches of 14."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.channel_norm import ChannelNorm
from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.head import Features
from nnunetv2.model.heads.primus import Primus
from nnunetv2.model.patch_decode import PatchDecode
from nnunetv2.model.patch_decode_config import PatchDecodeConfig, num_doublings
from tests.model.heads.head_cases import SPECS, num_parameters, spec_of


def tiny_network(num_classes: int = 3, backbone: str = "dinov3_native", **settings: Any) -> DenseViTNetwork:
    torch.manual_seed(0)
    head = {"name": "primus", "settings": settings}
    return DenseViTNetwork(1, num_classes, head=head, backbone=backbone, backbone_size="tiny", tuning="full")


def only_map(x: Tensor) -> Features:
    return Features(image=x, maps=[x], prefix_tokens=[])


class NormOfTheFork(nn.Module):
    """The layer norm over the channels, in the fork's order of operations."""

    def __init__(self, norm: ChannelNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        scaled = centred / torch.sqrt(centred.square().mean(dim=1, keepdim=True) + 1e-6)
        return self.norm.weight[:, None, None] * scaled + self.norm.bias[:, None, None]


def test_the_decoder_equals_that_of_the_origin_fork(oracle_recorded):
    recorded = np.load(oracle_recorded / "heads" / "primus_decoder.npz")
    prefix = "weights/"
    weights = {k.removeprefix(prefix): torch.from_numpy(recorded[k]) for k in recorded.files if k.startswith(prefix)}
    tokens, expected = (torch.from_numpy(recorded[name]) for name in ("in/map", "out/logits"))
    head = Primus(Primus.Config(), spec_of(32), 3)
    head.load_state_dict({f"up_projection.{name}": value for name, value in weights.items()})
    with torch.no_grad():
        logits, exact = head(only_map(tokens)), copy.deepcopy(head).double()(only_map(tokens.double()))
        for stage in head.up_projection.decode[:-1]:
            stage[1] = NormOfTheFork(stage[1])
        in_their_order = head(only_map(tokens))
    torch.testing.assert_close(in_their_order, expected, atol=1e-5, rtol=0)
    # The norm of two channels that are nearly equal magnifies rounding, theirs no less than ours.
    assert (logits - exact).abs().max() < (expected - exact).abs().max() < 1e-4


def test_the_norm_is_that_of_the_fork(seeded):
    norm, x = ChannelNorm(6).double(), torch.randn(2, 6, 3, 4, dtype=torch.float64)
    for parameter in norm.parameters():
        parameter.data.normal_()
    torch.testing.assert_close(norm(x), NormOfTheFork(norm)(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("num_classes", [1, 2, 5])
@pytest.mark.parametrize("grid", [(6, 6), (5, 7)])
def test_geometric_widths_make_upstreams_decoder(num_classes, grid, seeded):
    from dynamic_network_architectures.building_blocks.patch_encode_decode import PatchDecode as Upstream

    theirs = Upstream((1, 16, 16), 96, num_classes)  # of volumes with one slice, so with kernels of 1 x 2 x 2
    head = Primus(Primus.Config(channels="geometric"), spec_of(96), num_classes)
    flat = {name: value.squeeze(2) if value.ndim == 5 else value for name, value in theirs.state_dict().items()}
    head.up_projection.load_state_dict(flat)
    x = torch.randn(2, 96, *grid)
    with torch.no_grad():
        torch.testing.assert_close(head(only_map(x)), theirs(x[:, :, None]).squeeze(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("width", "num_classes", "widths"),
    [
        (384, 2, [384, 120, 40, 16, 2]),
        (768, 2, [768, 208, 56, 16, 2]),
        (1024, 2, [1024, 256, 64, 16, 2]),
        (1024, 5, [1024, 320, 104, 32, 5]),
        (1024, 10, [1024, 384, 144, 56, 10]),
    ],
)
def test_geometric_widths_are_upstreams(width, num_classes, widths):
    assert Primus.Config().geometric_widths(width, 16, num_classes) == widths


def test_halved_widths():
    assert Primus.Config().halved_widths(1024, 16) == [1024, 512, 256, 128, 64]
    assert Primus.Config(embed_dim=20, patch_embed_size=8).halved_widths(1024, 16) == [20, 10, 5, 2]
    assert [num_doublings(size) for size in (2, 3, 4, 14, 16, 17)] == [1, 2, 2, 4, 4, 5]


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        ({}, (392_810, 1_568_978, 2_788_290)),
        ({"embed_dim": 768}, (1_864_658, 1_568_978, 2_356_178)),
        ({"channels": "geometric"}, (206_738, 690_122, 1_119_346)),
    ],
)
def test_numbers_of_parameters(settings, counts):
    assert tuple(num_parameters(Primus, SPECS[size], **settings) for size in "SBL") == counts


def test_kernels_are_initialised_for_leaky_relu_and_biases_are_zero(seeded):
    head = Primus(Primus.Config(embed_dim=256), SPECS["S"], 64)
    layers = [module for module in head.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    assert [tuple(layer.weight.shape[:2]) for layer in layers][-1] == (64, 16)
    assert len(layers) == 6  # projection, four stages, classifier
    for layer in layers:
        fan_in = layer.weight[0].numel()  # of a transposed convolution: from its output channels
        expected = math.sqrt(2 / (1 + 0.01**2) / fan_in)
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.1)
        assert not layer.bias.any()


def test_a_stage_doubles_the_resolution_by_pixels_of_its_own(seeded):
    """One patch token becomes 2^n x 2^n pixels, and no other ones."""
    decoder = PatchDecode([8, 6, 4], 3).double()
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    other = x.clone()
    other[..., 1, 2] += 1
    changed = (decoder(x) != decoder(other)).any(dim=1)[0]
    assert changed.shape == (12, 16)
    assert changed[4:8, 8:12].all()
    assert changed.sum() == 16


@pytest.mark.parametrize("size", [(98, 98), (90, 75)])
def test_patches_of_14_are_enlarged_16_times_and_resized_to_the_padded_image(size):
    network = tiny_network(backbone="dinov2").eval()
    maps = []
    network.head.register_forward_hook(lambda module, inputs, output: maps.append((inputs[0].maps[0], output)))
    with torch.no_grad():
        logits = network(torch.randn(1, 1, *size))
    [(tokens, decoded)] = maps
    padded = [math.ceil(side / 14) * 14 for side in size]
    assert [side * 14 for side in tokens.shape[-2:]] == padded
    assert list(decoded.shape[-2:]) == [side // 14 * 16 for side in padded]
    expected = F.interpolate(decoded, size=padded, mode="bilinear", align_corners=False)
    assert torch.equal(logits, expected[..., : size[0], : size[1]])


@pytest.mark.parametrize("backbone", ["dinov3_native", "dinov2"])
@pytest.mark.parametrize("settings", [{}, {"embed_dim": 48, "channels": "geometric"}, {"patch_embed_size": 8}])
def test_any_size_any_number_of_classes_and_a_gradient_everywhere_from_one_image(backbone, settings):
    for num_classes in (1, 5):
        network = tiny_network(num_classes, backbone, **settings)
        with torch.no_grad():
            for size in ((50, 71), (7, 5)):
                logits = network.eval()(torch.randn(1, 1, *size))
                assert logits.shape == (1, num_classes, *size)
                assert logits.isfinite().all()
        logits = network.train()(torch.randn(1, 1, 40, 60))
        (logits * torch.randn_like(logits)).sum().backward()
        assert [name for name, p in network.head.named_parameters() if p.grad is None] == []


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("settings", [{}, {"embed_dim": 64}, {"channels": "geometric"}])
def test_the_classifier_is_what_depends_on_the_number_of_classes(settings):
    network, other = tiny_network(2, **settings), tiny_network(9, **settings)
    differing = {name for name, shape in shapes(network).items() if shapes(other)[name] != shape}
    named = {name for name in shapes(network) if network.is_classifier(name)}
    assert differing
    assert named == differing


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embed_dim": 0}, "model.embed_dim=0 is out of range; it must be at least 1"),
        ({"patch_embed_size": 1}, "model.patch_embed_size=1 is out of range"),
        ({"patch_embed_size": 14}, "model.patch_embed_size=14 must be a power of two.*next one is 16"),
        ({"channels": "halve"}, "model.channels='halve' is not known; choose one of halved, geometric"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Primus.Config(**settings)


def test_a_decoder_too_narrow_to_be_halved_is_refused():
    shape = BackboneShape(width=384, depth=12, patch_size=16)
    Primus.Config(embed_dim=32).check_backbone(shape, "dinov3 small")
    Primus.Config(embed_dim=31, channels="geometric").check_backbone(shape, "dinov3 small")
    with pytest.raises(UsageError, match="model.embed_dim=31 leaves the decoder 31 channels.*give at least 32"):
        Primus.Config(embed_dim=31).check_backbone(shape, "dinov3 small")
    with pytest.raises(UsageError, match="give at least 32"):
        tiny_network(embed_dim=31)


def test_it_reads_one_block_the_last_by_default():
    assert tiny_network().out_indices == [3]
    assert (Primus.Config.num_blocks, PatchDecodeConfig.num_blocks) == (1, 4)
