"""UNETR's head does what the origin fork's does with the same weights, and its image skip what MONAI's does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nnunetv2.errors import UsageError
from nnunetv2.model.backbone import BackboneSpec, Features
from nnunetv2.model.heads.unetr import UNETR, ImageBlock, group_norm
from nnunetv2.training.nnUNetTrainer.any_head_config import load_any_head_config
from tests.model.heads.head_cases import (
    SPECS,
    assert_segments_any_size_and_trains,
    network_of,
    num_parameters,
    random_features,
    spec_of,
    with_random_statistics,
)

SMALL = {"decoder_channels": [32, 16, 16, 8, 8]}
UNEVEN = [20, 12, 6, 8, 7]  # norms of 4, 4, 2, 8 and 1 groups


def make(spec: BackboneSpec, num_classes: int = 3, **settings: Any) -> UNETR:
    return UNETR(UNETR.Config(**settings), spec, num_classes)


@pytest.mark.parametrize("mode", ["deconv", "bilinear"])
def test_it_equals_the_origin_fork(mode, oracle_recorded):
    file = oracle_recorded / "heads" / f"unetr_{mode}.npz"
    if not file.is_file():
        pytest.skip(f"no recording {file.name}")
    recorded = {name: torch.from_numpy(value) for name, value in np.load(file).items()}
    head = make(spec_of(32, num_heads=1), upsample_mode=mode, **SMALL)
    prefix = "weights/"
    head.load_state_dict({name.removeprefix(prefix): v for name, v in recorded.items() if name.startswith(prefix)})
    maps = [recorded[f"in/map_{number}"] for number in range(4)]
    for network in (head.eval(), head.train()):
        with torch.no_grad():
            logits = network(Features(image=torch.empty(0), maps=maps, prefix_tokens=[]))
        torch.testing.assert_close(logits, recorded["out/logits"], atol=1e-5, rtol=0)


def groups_of(channels: int) -> int:
    return max(groups for groups in (1, 2, 4, 8) if channels % groups == 0)


def assembled(weights: dict[str, Tensor], maps: list[Tensor], mode: str, slope: float) -> Tensor:
    """The origin fork's form, written out from torch's functions."""

    def normalised(x: Tensor, name: str) -> Tensor:
        x = F.group_norm(x, groups_of(x.shape[1]), weights[f"{name}.weight"], weights[f"{name}.bias"])
        return F.leaky_relu(x, slope)

    def enlarged(x: Tensor, name: str) -> Tensor:
        x = F.conv_transpose2d(x, weights[f"{name}.deconv.weight"], weights[f"{name}.deconv.bias"], stride=2)
        return normalised(F.conv2d(x, weights[f"{name}.conv.weight"], padding=1), f"{name}.norm")

    def mixed(x: Tensor, name: str) -> Tensor:
        for step in (1, 2):
            x = normalised(F.conv2d(x, weights[f"{name}.conv{step}.weight"], padding=1), f"{name}.norm{step}")
        return x

    skips = []
    for depth, x in enumerate(maps):
        for block in range(4 - depth):
            x = enlarged(x, f"encoder.z{depth + 1}_blocks.{block}")
        skips.append(x)
    x = skips.pop()
    for stage in (4, 3, 2):
        if mode == "deconv":
            x = F.conv_transpose2d(
                x, weights[f"decoder.up{stage}.weight"], weights[f"decoder.up{stage}.bias"], stride=2
            )
        else:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = mixed(torch.cat((x, skips.pop()), dim=1), f"decoder.conv{stage}")
    return F.conv2d(mixed(x, "decoder.conv1"), weights["decoder.seg_head.weight"], weights["decoder.seg_head.bias"])


@pytest.mark.parametrize("grid", [(6, 6), (5, 7), (1, 3)])
@pytest.mark.parametrize(("mode", "slope"), [("deconv", 0.2), ("bilinear", 0.01)])
def test_it_equals_an_assembly_of_torchs_functions(mode, slope, grid, seeded):
    spec = spec_of(24, num_heads=1)
    head = make(spec, decoder_channels=UNEVEN, negative_slope=slope, upsample_mode=mode)
    with_random_statistics(head)
    features = random_features(spec, grid)
    with torch.no_grad():
        logits = head(features)
        expected = assembled(head.state_dict(), features.maps, mode, slope)
    assert logits.shape == (2, 3, 16 * grid[0], 16 * grid[1])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


WIDE = [1024, 512, 256, 128, 64]


@pytest.mark.parametrize(
    ("size", "settings", "expected"),
    [
        ("S", {}, 9_091_330),
        ("B", {}, 10_565_890),
        ("L", {}, 11_548_930),
        ("S", {"upsample_mode": "bilinear"}, 9_176_898),
        ("B", {"upsample_mode": "bilinear"}, 10_651_458),
        ("L", {"upsample_mode": "bilinear"}, 11_634_498),
        ("S", {"decoder_channels": WIDE}, 33_401_346),
        ("B", {"decoder_channels": WIDE}, 36_350_466),
        ("L", {"decoder_channels": WIDE}, 38_316_546),
    ],
)
def test_number_of_parameters(size, settings, expected):
    assert num_parameters(UNETR, SPECS[size], **settings) == expected


@pytest.mark.parametrize(("mode", "expected"), [("deconv", 82), ("bilinear", 76)])
def test_number_of_tensors(mode, expected):
    assert len(make(spec_of(32), upsample_mode=mode, **SMALL).state_dict()) == expected


def test_scales_and_channels_of_the_skips():
    spec = spec_of(32)
    head = make(spec, decoder_channels=[24, 16, 12, 8, 4])
    shapes = [tuple(skip.shape[1:]) for skip in head.encoder(random_features(spec, (5, 7)).maps)]
    assert shapes == [(24, 10, 14), (16, 20, 28), (12, 40, 56), (8, 80, 112)]


def test_groups_divide_the_channels():
    assert [group_norm(channels).num_groups for channels in (64, 20, 6, 7)] == [8, 4, 2, 1]


@pytest.mark.parametrize(("in_channels", "out_channels"), [(3, 8), (1, 4), (4, 4)])
def test_the_image_block_is_monais_first_encoder(in_channels, out_channels, seeded):
    blocks = pytest.importorskip("monai.networks.blocks.unetr_block")
    ours = ImageBlock(in_channels, out_channels, 0.01)
    theirs = blocks.UnetrBasicBlock(
        2, in_channels, out_channels, kernel_size=3, stride=1, norm_name="instance", res_block=True
    )
    names = {"shortcut.0.weight": "conv3.weight"}
    weights = {names.get(name, name): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict(
        {f"layer.{name.replace('.weight', '.conv.weight')}": value for name, value in weights.items()}
    )
    image = torch.randn(2, in_channels, 17, 12)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-5, rtol=0)


@pytest.mark.parametrize("patch_size", [16, 14])
def test_the_image_enters_the_last_stage_at_its_own_resolution(patch_size, seeded):
    spec = spec_of(32, patch_size=patch_size)
    head = make(spec, image_skip=True, **SMALL).eval()
    features = random_features(spec, (2, 3))
    seen = []
    head.decoder.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = head(features)
        image = head.image_block(features.image)
    assert logits.shape == (2, 3, 2 * patch_size, 3 * patch_size)
    assert seen[0].shape[1] == 8 + 8
    assert torch.equal(seen[0][:, 8:], image)


def test_without_an_image_skip_the_image_is_not_read(seeded):
    spec = spec_of(32)
    features = random_features(spec, (2, 3))
    other = Features(image=features.image + 1, maps=features.maps, prefix_tokens=features.prefix_tokens)
    other.image[..., 5, 7] += 3
    for image_skip in (False, True):
        head = make(spec, image_skip=image_skip, **SMALL).eval()
        with torch.no_grad():
            assert torch.equal(head(features), head(other)) is not image_skip


def test_logits_of_patches_of_14_are_not_displaced(monkeypatch):
    """The head's 16 pixels per patch stand for the 14 of the image, so a ramp stays a ramp over the whole image."""
    network = network_of("unetr", 1, family="dinov2", **SMALL).eval()

    def ramp(features: Features) -> Tensor:
        height, width = (16 * side for side in features.maps[0].shape[-2:])
        return ((torch.arange(width) + 0.5) / width).expand(1, 1, height, width)

    monkeypatch.setattr(network.head, "forward", ramp)
    logits = network(torch.randn(1, 1, 28, 42))
    expected = ((torch.arange(42) + 0.5) / 42).expand(1, 1, 28, 42)
    torch.testing.assert_close(logits[..., 1:-1], expected[..., 1:-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("family", "num_classes", "settings"),
    [
        ("dinov3_native", 1, {}),
        ("dinov2", 5, {"image_skip": True, "tuning": "full"}),
        ("dinov2", 2, {"upsample_mode": "bilinear", "decoder_channels": [7, 6, 5, 4, 3], "tuning": "lora"}),
    ],
)
def test_any_image_is_segmented_and_everything_is_trained(family, num_classes, settings):
    assert_segments_any_size_and_trains("unetr", num_classes, family=family, **SMALL | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upsample_mode": "nearest"}, r"model\.upsample_mode='nearest' is not known; choose one of deconv, bilinear"),
        ({"decoder_channels": [8, 8, 8, 8]}, r"model\.decoder_channels=\[8, 8, 8, 8\] must be 5 numbers of channels"),
        ({"decoder_channels": [8, 8, 8, 8, 0]}, r"model\.decoder_channels=\[8, 8, 8, 8, 0\] must be 5 numbers"),
        ({"negative_slope": -0.01}, r"model\.negative_slope=-0\.01 is out of range; it must be between 0 and 1"),
    ],
)
def test_wrong_settings_are_rejected(settings, message):
    with pytest.raises(UsageError, match=message):
        UNETR.Config(**settings)


def test_settings_come_from_a_file(tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("model:\n  head: unetr\n  decoder_channels: [64, 32, 16, 8, 4]\n  image_skip: true\n")
    config = load_any_head_config(file, ["model.upsample_mode=bilinear"])
    assert config.model.head_config() == type(config.model.head_config())([64, 32, 16, 8, 4], 0.01, "bilinear", True)
    assert config.model.backbone_out_layers == "FOUR_EVEN_INTERVALS"


def test_it_is_the_classifier_that_starts_anew_for_other_classes():
    network = network_of("unetr", **SMALL)
    named = [name for name in network.state_dict() if network.is_classifier(name)]
    assert named == ["head.decoder.seg_head.weight", "head.decoder.seg_head.bias"]
