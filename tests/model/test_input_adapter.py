"""Channels and normalisation in front of a backbone made for RGB."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.input_adapter import INPUT_NORMS, InputAdapter


@pytest.mark.parametrize(("channels", "order"), [(1, [0, 0, 0]), (2, [0, 1, 0]), (3, [0, 1, 2])])
def test_repeat_fills_three_channels_in_turn(channels, order):
    image = torch.randn(2, channels, 4, 5)
    adapter = InputAdapter(channels)
    assert adapter.out_channels == 3
    torch.testing.assert_close(adapter(image), image[:, order])


@pytest.mark.parametrize(("rule", "channels"), [("repeat", 4), ("inflate", 4), ("inflate", 1)])
def test_no_channel_is_dropped_where_all_go_in(rule, channels):
    image = torch.randn(1, channels, 4, 4)
    adapter = InputAdapter(channels, rule)
    assert adapter.out_channels == channels
    torch.testing.assert_close(adapter(image), image)


def test_conv1x1_starts_as_the_average_of_every_third_channel():
    image = torch.randn(1, 5, 2, 2)
    mixed = InputAdapter(5, "conv1x1")(image)
    expected = torch.stack([image[:, [0, 3]].mean(1), image[:, [1, 4]].mean(1), image[:, 2]], dim=1)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(InputAdapter(1, "conv1x1")(image[:, :1]), image[:, :1].expand(-1, 3, -1, -1))


def test_imagenet_constants_make_the_average_photograph_zero():
    adapter = InputAdapter(3, input_norm="imagenet")
    pixel = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None]
    torch.testing.assert_close(adapter(pixel), torch.zeros(1, 3, 1, 1))
    torch.testing.assert_close(
        adapter(pixel + torch.tensor([0.229, 0.224, 0.225])[:, None, None]), torch.ones(1, 3, 1, 1)
    )


@pytest.mark.parametrize(
    ("modality", "mean", "std"),
    [
        ("fundus", [0.4237, 0.2609, 0.1284], [0.2948, 0.2017, 0.1367]),
        ("oct", [0.2109] * 3, [0.1760] * 3),
        ("ffa", [0.2020, 0.2021, 0.2020], [0.1741, 0.1740, 0.1740]),
        ("external", [0.4936, 0.3632, 0.2596], [0.3200, 0.2711, 0.2199]),
        ("slitlamp", [0.5557, 0.4029, 0.3886], [0.2652, 0.2331, 0.2390]),
        ("ubm", [0.0961] * 3, [0.2098] * 3),
        ("us", [0.0599, 0.0598, 0.0567], [0.1543, 0.1550, 0.1446]),
        ("mri", [0.1737] * 3, [0.1620] * 3),
    ],
)
def test_visionfms_constants_bring_the_images_of_a_modality_to_zero_and_one(modality, mean, std):
    adapter = InputAdapter(3, input_norm=f"visionfm_{modality}")
    pixel, spread = torch.tensor(mean)[None, :, None, None], torch.tensor(std)[None, :, None, None]
    torch.testing.assert_close(adapter(pixel), torch.zeros(1, 3, 1, 1))
    torch.testing.assert_close(adapter(pixel + spread), torch.ones(1, 3, 1, 1))


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("rule", ["repeat", "conv1x1", "inflate"])
def test_a_channel_has_the_constants_of_the_colour_that_it_stands_for(channels, rule):
    adapter = InputAdapter(channels, rule, "visionfm_fundus")
    zero = adapter(torch.zeros(1, channels, 1, 1))[0, :, 0, 0]
    expected = [-0.4237 / 0.2948, -0.2609 / 0.2017, -0.1284 / 0.1367] * 2
    torch.testing.assert_close(zero, torch.tensor(expected[: adapter.out_channels]))


def test_only_the_names_in_the_list_are_known():
    assert INPUT_NORMS[:2] == ("dataset", "imagenet")
    with pytest.raises(
        UsageError, match="model.input_norm='visionfm' is not known; choose one of dataset, imagenet, v"
    ):
        InputAdapter(3, input_norm="visionfm")
    with pytest.raises(UsageError, match="model.channel_adaptation='copy' is not known; choose one of repeat, conv1x1"):
        InputAdapter(3, "copy")


def test_constants_are_not_part_of_the_weights():
    assert InputAdapter(1, input_norm="imagenet").state_dict() == {}


def test_labels_of_a_first_stage_start_without_influence_and_learn() -> None:
    image, labels = torch.rand(2, 2, 4, 5), torch.rand(2, 3, 4, 5)
    adapter = InputAdapter(5, "conv1x1", label_channels=3)
    found = adapter(torch.cat((image, labels), dim=1))
    torch.testing.assert_close(found, InputAdapter(2, "conv1x1")(image))
    found.square().sum().backward()
    assert (adapter.mix.weight.grad[:, 2:] != 0).all()
