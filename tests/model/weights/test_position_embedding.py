"""Position embeddings of other sizes and layouts, compared with timm's way of reading them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.errors import DataError
from nnunetv2.model.weights.position_embedding import fit_position_embedding

timm = pytest.importorskip("timm")
WIDTH = 32


def vit(name: str, grid: int) -> nn.Module:
    size = {"embed_dim": WIDTH, "depth": 1, "num_heads": 2, "img_size": 14 * grid, "num_classes": 0}
    return timm.create_model(name, **size)


def weights(tokens: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"cls_token": torch.randn(1, 1, WIDTH), "pos_embed": torch.randn(1, tokens, WIDTH)}


@pytest.mark.parametrize(("old", "new"), [(4, 7), (7, 4), (5, 5)])
def test_another_size_is_resampled_as_timm_does(old, new):
    from timm.models.vision_transformer import checkpoint_filter_fn

    model, given = vit("vit_small_patch14_dinov2", new), weights(1 + old**2)
    fitted, resampled = fit_position_embedding(given, model.pos_embed, has_class_slot=True)
    expected = checkpoint_filter_fn(dict(given), model)
    torch.testing.assert_close(fitted, expected, rtol=0, atol=0)
    assert resampled == (None if old == new else f"{old}x{old} to {new}x{new}")
    torch.testing.assert_close(fitted["pos_embed"][:, :1], given["pos_embed"][:, :1])


@pytest.mark.parametrize(("old", "new"), [(4, 4), (4, 6)])
def test_the_class_slot_goes_to_the_class_token_where_the_model_has_none(old, new):
    from timm.models.vision_transformer import checkpoint_filter_fn

    model, given = vit("vit_small_patch14_reg4_dinov2", new), weights(1 + old**2)
    fitted, _ = fit_position_embedding(given, model.pos_embed, has_class_slot=False)
    of_meta = given | {"register_tokens": torch.zeros(1, 4, WIDTH), "mask_token": torch.zeros(1, WIDTH)}
    expected = checkpoint_filter_fn(of_meta, model)
    torch.testing.assert_close(fitted, {name: expected[name] for name in fitted})
    torch.testing.assert_close(fitted["cls_token"], given["cls_token"] + given["pos_embed"][:, :1])


def test_a_slot_that_the_file_lacks_is_zero():
    given = weights(9)
    fitted, resampled = fit_position_embedding(given, torch.zeros(1, 10, WIDTH), has_class_slot=True)
    assert resampled is None
    assert not fitted["pos_embed"][:, 0].any()
    torch.testing.assert_close(fitted["pos_embed"][:, 1:], given["pos_embed"])
    torch.testing.assert_close(fitted["cls_token"], given["cls_token"])


def test_an_embedding_that_is_constant_stays_so_and_what_was_given_is_not_changed():
    given = {"pos_embed": torch.full((1, 17, WIDTH), 0.5, dtype=torch.float16)}
    fitted, _ = fit_position_embedding(given, torch.zeros(1, 50, WIDTH), has_class_slot=True)
    assert fitted["pos_embed"].shape == (1, 50, WIDTH)
    torch.testing.assert_close(fitted["pos_embed"].float(), torch.full((1, 50, WIDTH), 0.5), atol=1e-3, rtol=0)
    assert given["pos_embed"].shape == (1, 17, WIDTH)


def test_an_embedding_of_an_image_that_is_not_square_is_refused():
    with pytest.raises(DataError, match=r"\(1, 15, 32\) is not one of a square image"):
        fit_position_embedding(weights(15), torch.zeros(1, 10, WIDTH), has_class_slot=True)


def test_an_embedding_of_another_width_is_left_to_the_comparison_of_shapes():
    fitted, resampled = fit_position_embedding(weights(17), torch.zeros(1, 10, 64), has_class_slot=True)
    assert fitted["pos_embed"].shape == (1, 17, WIDTH)
    assert resampled is None
