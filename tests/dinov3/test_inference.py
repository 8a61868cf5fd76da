"""Scores of whole images from windows of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from dinov3.eval.segmentation import inference
from dinov3.eval.segmentation.inference import make_inference, slide_inference, window_size, window_starts
from dinov3.eval.segmentation.models import build_segmentation_decoder
from dinov3.eval.segmentation.models.heads.semantic_scores import semantic_scores
from dinov3.utils.errors import UsageError
from tests.dinov3.fake_backbone import FakeBackbone
from tests.dinov3.fake_segmenters import PixelMaskModel, PixelModel, WindowModel


def whole_numbers(*shape):
    return torch.randint(-20, 20, shape, generator=torch.Generator().manual_seed(5)).float()


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (10, 4, 3, [0, 3, 6]),  # fits exactly
        (11, 4, 3, [0, 3, 6, 7]),  # the last window is shifted back
        (8, 4, 4, [0, 4]),
        (4, 4, 3, [0]),
        (683, 512, 341, [0, 171]),
        (10, 3, 5, [0, 3, 6, 7]),  # a window that was made shorter than the stride
    ],
)
def test_windows_start_at_the_stride_and_the_last_ends_with_the_axis(length, window, stride, starts):
    assert window_starts(length, window, stride) == starts


@pytest.mark.parametrize(
    ("image", "crop", "window"),
    [
        ((600, 800), (512, 512), (512, 512)),
        ((400, 800), (512, 512), (400, 512)),  # one side shorter: as long as the image
        ((800, 400), (512, 512), (512, 400)),
        ((400, 480), (512, 512), (400, 400)),  # both shorter: a square
        ((512, 512), (512, 512), (512, 512)),
        ((512, 300), (512, 512), (512, 300)),
    ],
)
def test_windows_are_cut_to_the_image(image, crop, window):
    assert window_size(image, crop) == window


sides = st.integers(1, 40)


@settings(deadline=None, max_examples=150)
@given(sides, sides, sides, sides, st.data())
def test_windows_cover_an_image_with_no_more_of_them_than_needed(height, width, crop_height, crop_width, data):
    strides = [data.draw(st.integers(1, crop)) for crop in (crop_height, crop_width)]
    windows = window_size((height, width), (crop_height, crop_width))
    for length, window, stride in zip((height, width), windows, strides, strict=True):
        starts = window_starts(length, window, stride)
        assert starts[0] == 0
        assert starts[-1] + window == length
        assert all(0 < later - earlier <= min(window, stride) for earlier, later in pairwise(starts))
        assert (len(starts) - 2) * min(stride, window) + window < length or len(starts) == 1


@settings(deadline=None, max_examples=60)
@given(sides, sides, sides, sides, st.sampled_from([1, 3, 8]), st.integers(1, 5), st.booleans(), st.data())
def test_windows_of_a_model_that_sees_single_pixels_change_nothing(
    height, width, crop_height, crop_width, multiple, windows_per_forward, masks, data
):
    """For any image, window and stride: larger or smaller on either side, and no multiples of anything."""
    model = (PixelMaskModel if masks else PixelModel)(multiple)
    image = whole_numbers(1, 3, height, width)
    stride = tuple(data.draw(st.integers(1, crop)) for crop in (crop_height, crop_width))
    scores = slide_inference(
        image,
        model,
        "m2f" if masks else "linear",
        crop_size=(crop_height, crop_width),
        stride=stride,
        windows_per_forward=windows_per_forward,
    )
    expected = torch.einsum("kc,bchw->bkhw", model.weight, image)
    if masks:
        assert_close(scores, expected.sigmoid())
    else:
        assert_close(scores, expected, rtol=1e-6, atol=0)  # (a + a + a) / 3 may be one unit in the last place off


def test_scores_of_a_pixel_are_the_mean_over_its_windows():
    image = torch.zeros(1, 3, 1, 5)
    image[0, 0, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    model = WindowModel(lambda windows: windows.sum(dim=(1, 2, 3)))
    scores = slide_inference(image, model, crop_size=(1, 3), stride=(1, 1))  # windows 1+2+3, 2+3+4, 3+4+5
    assert_close(scores[0, 0, 0], torch.tensor([6.0, 7.5, 9.0, 10.5, 12.0]))


def test_windows_are_moved_by_their_own_distance_along_each_axis():
    """Windows of 2 x 3 begin in rows 0, 1, 2 and in columns 0, 2."""
    image = torch.zeros(1, 3, 4, 5)
    image[0, 0] = torch.outer(torch.tensor([1.0, 10, 100, 1000]), torch.tensor([1.0, 2, 3, 4, 5]))
    model = WindowModel(lambda windows: windows.sum(dim=(1, 2, 3)))
    scores = slide_inference(image, model, crop_size=(2, 3), stride=(1, 2))
    of_rows = torch.tensor([11, (11 + 110) / 2, (110 + 1100) / 2, 1100])
    of_columns = torch.tensor([6.0, 6, (6 + 12) / 2, 12, 12])  # 1 + 2 + 3 and 3 + 4 + 5
    assert_close(scores[0, 0], torch.outer(of_rows, of_columns))


def test_windows_share_forward_passes():
    image = whole_numbers(1, 3, 16, 40)
    one_by_one, together = PixelModel(), PixelModel()
    expected = slide_inference(image, one_by_one, crop_size=(8, 8), stride=(8, 8))
    scores = slide_inference(image, together, crop_size=(8, 8), stride=(8, 8), windows_per_forward=4)
    assert_close(scores, expected, rtol=0, atol=0)
    assert [size[0] for size in one_by_one.sizes] == [1] * 10
    assert [size[0] for size in together.sizes] == [4, 4, 2]


def test_several_images_do_not_mix():
    images = whole_numbers(3, 3, 10, 14)
    settings = {"crop_size": (6, 6), "stride": (4, 4), "windows_per_forward": 4}
    together = slide_inference(images, PixelModel(), **settings)
    alone = [slide_inference(image[None], PixelModel(), **settings) for image in images]
    assert_close(together, torch.cat(alone), rtol=0, atol=0)


@pytest.mark.parametrize(("windows_per_forward", "num_passes"), [(1, 5), (2, 5)])
def test_missing_forward_passes_are_made_on_zeros(windows_per_forward, num_passes):
    image = whole_numbers(1, 3, 8, 24)
    model = PixelModel()
    scores = slide_inference(
        image, model, crop_size=(8, 8), stride=(8, 8), num_max_forward=5, windows_per_forward=windows_per_forward
    )
    assert len(model.sizes) == num_passes
    assert_close(scores, PixelModel().logits(image), rtol=0, atol=0)


def test_whole_image_keeps_its_own_size():
    model, image = PixelModel(8), whole_numbers(1, 3, 20, 30)
    scores = make_inference(image, model, rescale_to=(20, 30))
    assert model.sizes == [(1, 3, 24, 32)]
    assert_close(scores, torch.einsum("kc,bchw->bkhw", model.weight, image), rtol=0, atol=0)


def test_result_is_resized_to_the_label():
    image = whole_numbers(1, 3, 20, 30)
    scores = make_inference(image, PixelModel(), rescale_to=(33, 17))
    expected = functional.interpolate(PixelModel().logits(image), (33, 17), mode="bilinear", align_corners=False)
    assert_close(scores, expected)


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_flipped_view_of_an_equivariant_model_gives_the_same(mode):
    image = whole_numbers(1, 3, 21, 30)
    settings = {"inference_mode": mode, "crop_size": (8, 8), "stride": (5, 5), "rescale_to": (13, 19)}
    plain = make_inference(image, PixelModel(), **settings)
    flipped = make_inference(image.flip(-1), PixelModel(), apply_horizontal_flip=True, **settings)
    assert_close(flipped, plain, rtol=0, atol=1e-2)  # of some 1000; resizing rounds differently from the other side
    assert not torch.allclose(make_inference(image.flip(-1), PixelModel(), **settings), plain)


def test_activation_comes_last():
    image = whole_numbers(1, 3, 4, 6)
    scores = make_inference(image, PixelModel(), rescale_to=(8, 9), output_activation=lambda s: s.softmax(dim=1))
    expected = make_inference(image, PixelModel(), rescale_to=(8, 9)).softmax(dim=1)
    assert_close(scores, expected)
    assert_close(scores.sum(dim=1), torch.ones(1, 8, 9))


def test_scores_are_summed_in_float32():
    class HalfPrecision(PixelModel):
        def predict(self, images, rescale_to):
            return super().predict(images, rescale_to).bfloat16()

    image = torch.full((1, 3, 1, 300), 1 / 3)
    scores = slide_inference(image, HalfPrecision(), crop_size=(1, 100), stride=(1, 1))
    assert scores.dtype == torch.float32
    assert_close(scores, HalfPrecision().predict(image, (1, 300)).float(), rtol=1e-5, atol=0)


def test_scores_of_a_large_image_are_summed_in_main_memory(monkeypatch):
    asked = []

    def on_cpu(shape, like):
        asked.append(tuple(shape))
        return torch.device("cpu")

    monkeypatch.setattr(inference, "_device_with_room", on_cpu)
    make_inference(whole_numbers(1, 3, 10, 10), PixelModel(), rescale_to=(20, 20))
    assert asked == [(1, 4, 10, 10), (1, 4, 20, 20)]


def test_room_is_a_matter_of_bytes():
    on_meta = torch.zeros(1, device="meta")
    assert inference._device_with_room((1, 2**28), on_meta).type == "meta"
    assert inference._device_with_room((1, 2**28 + 1), on_meta).type == "cpu"


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_mask2former_of_any_size_is_the_model_on_padded_windows(seeded, mode):
    model = build_segmentation_decoder(
        FakeBackbone(),
        hidden_dim=32,
        num_classes=3,
        num_heads=4,
        dim_feedforward=48,
        num_queries=8,
        num_decoder_layers=2,
        num_encoder_layers=1,
    ).eval()
    image = torch.randn(1, 3, 50, 70)
    scores = make_inference(
        image, model, mode, "m2f", rescale_to=(50, 70), n_output_channels=3, crop_size=(64, 64), stride=(40, 40)
    )
    assert scores.shape == (1, 3, 50, 70)
    with torch.no_grad():
        if mode == "whole":
            outputs = model.predict(functional.pad(image, (0, 26, 0, 14)), rescale_to=(64, 96))
            expected = semantic_scores(outputs["pred_logits"], outputs["pred_masks"])[..., :50, :70]
            assert_close(scores, expected)
        else:  # two windows of 50 x 64, the first alone on the left
            outputs = model.predict(functional.pad(image[..., :64], (0, 0, 0, 14)), rescale_to=(64, 64))
            expected = semantic_scores(outputs["pred_logits"], outputs["pred_masks"])[..., :50, :6]
            assert_close(scores[..., :6], expected)
    assert not scores.requires_grad


def test_no_gradient_is_kept_and_nothing_is_an_inference_tensor():
    model = PixelModel()
    model.weight.requires_grad_(True)
    scores = make_inference(whole_numbers(1, 3, 8, 8), model, rescale_to=(8, 8))
    assert not scores.requires_grad
    assert not scores.is_inference()  # a table that a model keeps must serve the next training step


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"inference_mode": "full"}, "'full' is unknown; choose one of slide, whole"),
        ({"inference_mode": "slide"}, "needs a crop size and a stride; given are None and None"),
        ({"decoder_head_type": "dpt"}, "'dpt' is unknown; choose one of linear, m2f"),
        (
            {"inference_mode": "slide", "crop_size": (8, 8), "stride": (8, 9)},
            r"\(8, 8\) pixels at distances of \(8, 9\) do not cover an image; choose distances from 1",
        ),
        ({"inference_mode": "slide", "crop_size": (8, 8), "stride": (0, 8)}, "choose distances from 1"),
        ({"windows_per_forward": 0}, "0 windows per forward pass were asked for; choose at least 1"),
    ],
)
def test_impossible_settings_are_refused(kwargs, message):
    with pytest.raises(UsageError, match=message):
        make_inference(torch.zeros(1, 3, 16, 16), PixelModel(), **kwargs)


def test_another_number_of_classes_is_refused():
    with pytest.raises(UsageError, match="has 4 classes and 5 were asked for; set decoder_head.num_classes=4"):
        make_inference(torch.zeros(1, 3, 16, 16), PixelModel(), n_output_channels=5)
