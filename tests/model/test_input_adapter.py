"""Channels and normalisation in front of a backbone made for RGB."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.model.input_adapter import InputAdapter


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


def test_constants_are_not_part_of_the_weights():
    assert InputAdapter(1, input_norm="imagenet").state_dict() == {}
