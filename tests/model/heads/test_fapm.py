"""Dino U-Net's projection and upsampling do what the public implementation's do, its decoder what nnU-Net's does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder as UpstreamDecoder
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import BackboneSpec, Features
from nnunetv2.model.heads.fapm import FAPM, DinoUNet, FourfoldUpsampling, InstanceNorm, SqueezeExcitation, UNetDecoder
from tests.model.heads.small import SMALL, loss_of, small_network

WIDTHS = [32, 64, 128, 256]
# The public decoder keeps segmentation layers at 1/4 and 1/2 of the image, which get no gradient.
UNUSED_IN_PUBLIC = 2 * (128 + 64) + 2 + 2


class StandIn(nn.Module):
    """A backbone that has sizes and, of its own, no parameters: its maps are means of the image's patches."""

    patch_size = 16

    def __init__(self, embed_dim: int, num_blocks: int = 12) -> None:
        super().__init__()
        self.embed_dim, self.num_blocks = embed_dim, num_blocks

    def get_intermediate_layers(self, image: Tensor, n: list[int], **_: bool) -> list[Tensor]:
        means = F.avg_pool2d(image.mean(1, keepdim=True), self.patch_size).expand(-1, self.embed_dim, -1, -1)
        return [means * (block + 1) for block in n]


def make(embed_dim: int, num_classes: int = 2, channels: int = 3, **settings) -> DinoUNet:
    spec = BackboneSpec(embed_dim, 12, 16, embed_dim // 64, 5, channels)
    return DinoUNet(DinoUNet.Config(**settings), spec, num_classes, StandIn(embed_dim), [2, 5, 8, 11])


def recorded(folder: Path, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights, and inputs and outputs, of a recording."""
    file = folder / "heads" / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"no recording {file.name}")
    arrays = {key: torch.from_numpy(value) for key, value in np.load(file).items()}
    prefix = "weights/"
    weights = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
    return weights, {key: value for key, value in arrays.items() if not key.startswith(prefix)}


def upstream_decoder(widths: list[int], num_classes: int) -> UpstreamDecoder:
    """nnU-Net's, for skips of these widths and each of half the resolution of the one before."""
    encoder = SimpleNamespace(
        output_channels=widths,
        strides=[1, 2, 2, 2],
        kernel_sizes=[3, 3, 3, 3],
        conv_op=nn.Conv2d,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        dropout_op=None,
        dropout_op_kwargs=None,
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return UpstreamDecoder(encoder, num_classes, n_conv_per_stage=2, deep_supervision=False)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_the_projection_equals_the_public_one(training, oracle_recorded):
    weights, arrays = recorded(oracle_recorded, "fapm")
    projection = FAPM(dim=32, rank=16, widths=[8, 16, 32, 64]).train(training)
    projection.load_state_dict(weights)
    results = projection([arrays[f"in/map_{scale}"] for scale in range(4)])
    for scale, result in enumerate(results):
        torch.testing.assert_close(result, arrays[f"out/map_{scale}"], rtol=0, atol=1e-5)


def test_the_upsampling_equals_the_public_one(oracle_recorded):
    weights, arrays = recorded(oracle_recorded, "fapm_upsample")
    upsampling = FourfoldUpsampling(8)
    upsampling.load_state_dict(weights)
    torch.testing.assert_close(upsampling(arrays["in/map"]), arrays["out/map"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("coarsest", [(6, 6), (5, 7)])
def test_the_decoder_equals_nnunets(training, coarsest, seeded):
    widths = [8, 12, 20, 24]
    upstream, ours = upstream_decoder(widths, num_classes=3), UNetDecoder(widths, num_classes=3)
    layers = [*zip(ours.transpconvs, upstream.transpconvs, strict=True), (ours.classifier, upstream.seg_layers[-1])]
    for stage, upstream_stage in zip(ours.stages, upstream.stages, strict=True):
        first, second = upstream_stage.convs
        pairs = zip((0, 1, 3, 4), (first.conv, first.norm, second.conv, second.norm), strict=True)
        layers += [(stage[place], layer) for place, layer in pairs]
    for mine, theirs in layers:
        for parameter in theirs.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        mine.load_state_dict(theirs.state_dict())
    assert {id(p) for mine, _ in layers for p in mine.parameters()} == {id(p) for p in ours.parameters()}
    skips = [
        torch.randn(2, width, coarsest[0] << finer, coarsest[1] << finer)
        for width, finer in zip(widths, (3, 2, 1, 0), strict=True)
    ]
    result = ours.train(training)(skips)
    torch.testing.assert_close(result, upstream.train(training)(skips), rtol=0, atol=1e-5)
    assert result.shape == (2, 3, 8 * coarsest[0], 8 * coarsest[1])


@pytest.mark.parametrize(
    ("embed_dim", "projection", "head", "adapter_in_millions"),
    [(384, 1_393_214, 2_496_516, 3.698), (768, 1_884_734, 2_988_036, 10.194), (1024, 2_212_414, 3_315_716, 16.654)],
)
def test_parameters_are_as_many_as_the_public_implementation_uses(embed_dim, projection, head, adapter_in_millions):
    with torch.device("meta"):
        network = make(embed_dim)
    assert num_parameters(network.fapm) == projection
    assert num_parameters(network.ups) == 348_640
    assert num_parameters(network.decoder) == 754_662 - UNUSED_IN_PUBLIC
    adapter = num_parameters(network.adapter)
    assert num_parameters(network) - adapter == head - UNUSED_IN_PUBLIC
    assert round(adapter / 1e6, 3) == adapter_in_millions


def test_convolutions_start_as_pytorch_does(seeded):
    head = make(64)
    for name, module in nn.ModuleList([head.fapm, head.ups, head.decoder]).named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            bound = module.weight[0].numel() ** -0.5  # PyTorch's of a transposed convolution too
            assert 0.7 < float(module.weight.detach().abs().max()) / bound < 1.0001, name
            assert float(module.bias.detach().abs().max()) / bound < 1.0001, name
        elif isinstance(module, InstanceNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all(), name


def test_the_basis_is_shared_and_modulates_what_is_a_scales_own(seeded):
    projection = FAPM(dim=6, rank=4, widths=[4])
    level = torch.randn(1, 6, 3, 5)
    film = projection.film_generators[0]
    film.weight.data.zero_()
    film.bias.data = torch.tensor([2.0] * 4 + [3.0] * 4)  # scales, then shifts
    own = projection.specific_bases[0](level)
    expected = 2 * own + 3
    refined = projection.refinement_blocks[0](expected)
    torch.testing.assert_close(projection([level])[0], refined + expected)  # the shortcut of equal width is plain
    assert isinstance(projection.shortcut_projections[0], nn.Identity)


def test_squeeze_excitation_by_hand():
    block = SqueezeExcitation(2)
    assert block.fc[0].out_channels == 1
    for parameter in block.parameters():
        parameter.data.zero_()
    block.fc[0].weight.data[0, :, 0, 0] = torch.tensor([1.0, 2.0])
    block.fc[2].weight.data[:, 0, 0, 0] = torch.tensor([0.5, -0.25])
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])  # means 2 and 1: hidden 4, weights sigmoid(2) and sigmoid(-1)
    gates = torch.tensor([2.0, -1.0]).sigmoid().view(1, 2, 1, 1)
    torch.testing.assert_close(block(x), x * gates)


def test_the_norm_is_pytorchs_but_takes_single_pixels(seeded):
    norm, pytorchs = InstanceNorm(3, affine=True), nn.InstanceNorm2d(3, affine=True)
    for layer in (norm, pytorchs):
        layer.weight.data = torch.tensor([1.0, -2.0, 0.5])
        layer.bias.data = torch.tensor([0.0, 1.0, 4.0])
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(norm(x), pytorchs(x), rtol=0, atol=0)
    pixel = norm(torch.randn(2, 3, 1, 1))
    torch.testing.assert_close(pixel, norm.bias.expand(2, 3).reshape(2, 3, 1, 1), rtol=0, atol=1e-4)


def test_skips_stand_at_full_half_quarter_and_eighth(seeded):
    head = make(64, num_classes=3, **SMALL["fapm"]).eval()
    seen = []
    head.decoder.register_forward_pre_hook(lambda _, inputs: seen.extend(tuple(skip.shape) for skip in inputs[0]))
    with torch.no_grad():
        logits = head(Features(torch.randn(1, 3, 64, 96), [], []))
    assert seen == [(1, 16, 64, 96), (1, 16, 32, 48), (1, 32, 16, 24), (1, 32, 8, 12)]
    assert logits.shape == (1, 3, 64, 96)


def test_recomputing_the_adapter_changes_no_gradient(seeded):
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = small_network("fapm", 3, gradient_checkpointing=recompute, drop_path_rate=0.0)
        loss_of(network, torch.randn(1, 1, 64, 48)).backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("family", ["dinov3", "dinov2"])
def test_its_backbone_is_the_real_one(family):
    network = small_network("fapm", backbone=family)
    assert network.backbone.patch_size == {"dinov3": 16, "dinov2": 14}[family]
    assert network.size_multiple == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"model\.rank=0"),
        ({"widths": [32, 64, 128]}, r"model\.widths=\[32, 64, 128\] must be 4 numbers .*\[32,64,128,256\]"),
        ({"widths": [0, 64, 128, 256]}, r"model\.widths=\[0, 64, 128, 256\]"),
        ({"drop_path_rate": 1.0}, r"model\.drop_path_rate=1\.0"),
    ],
)
def test_settings_that_do_not_fit_are_rejected(settings, message):
    with pytest.raises(UsageError, match=message):
        DinoUNet.Config(**settings)


def test_every_parameter_of_a_squeeze_excitation_learns_while_its_hidden_units_are_alive(seeded):
    squeeze = SqueezeExcitation(16)
    torch.nn.init.ones_(squeeze.fc[0].bias)
    squeeze(torch.randn(2, 16, 3, 5)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in squeeze.parameters())
