"""The released sizes: parameters and tensors of each, without memory for their weights."""

from __future__ import annotations

import pytest

from dinov3.hub.architectures import SIZES, Weights, constructor_arguments
from dinov3.models import vision_transformer
from dinov3.models.vision_transformer import DinoVisionTransformer
from tests.dinov3.meta_tensors import meta_tensors

# name: (millions of parameters, tensors in the state dict)
RELEASED = {
    "dinov3_vits16": (21.601, 188),
    "dinov3_vits16plus": (28.697, 212),
    "dinov3_vitb16": (85.670, 188),
    "dinov3_vitl16": (303.154, 368),
    "dinov3_vitl16plus": (403.916, 416),
    "dinov3_vith16plus": (840.634, 552),
    "dinov3_vit7b16": (6716.043, 610),
}


def build(name, **options):
    with meta_tensors():
        return DinoVisionTransformer(**constructor_arguments(SIZES[name]), **options)


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_and_tensors(name):
    untied = Weights.LVD1689M in SIZES[name].untied_norm
    model = build(name, untie_global_and_local_cls_norm=untied)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert (round(millions, 3), len(model.state_dict())) == RELEASED[name]


def test_names_and_shapes_of_the_small_one():
    width, prefix = 384, "blocks.11."
    shapes = {name: tuple(tensor.shape) for name, tensor in build("dinov3_vits16").state_dict().items()}
    assert {name for name in shapes if not name.startswith("blocks.")} == {
        *("cls_token", "storage_tokens", "mask_token", "rope_embed.periods", "norm.weight", "norm.bias"),
        *("patch_embed.proj.weight", "patch_embed.proj.bias"),
    }
    assert shapes["storage_tokens"] == (1, 4, width) and shapes["mask_token"] == (1, width)
    assert shapes["rope_embed.periods"] == (16,) and shapes["patch_embed.proj.weight"] == (width, 3, 16, 16)
    assert {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)} == {
        **{f"{norm}.{part}": (width,) for norm in ("norm1", "norm2") for part in ("weight", "bias")},
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.qkv.bias_mask": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "ls1.gamma": (width,),
        "ls2.gamma": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }


def test_largest_one_has_no_bias_to_mask_but_a_second_norm():
    names = set(build("dinov3_vit7b16", untie_global_and_local_cls_norm=True).state_dict())
    assert not any("qkv.bias" in name for name in names)
    assert {"local_cls_norm.weight", "local_cls_norm.bias", "blocks.39.mlp.w3.bias"} <= names


@pytest.mark.parametrize(
    ("factory", "width", "depth", "hidden"),
    [
        ("vit_small", 384, 12, 1536),
        ("vit_base", 768, 12, 3072),
        ("vit_large", 1024, 24, 4096),
        ("vit_so400m", 1152, 27, 4352),
        ("vit_huge2", 1280, 32, 5120),
        ("vit_giant2", 1536, 40, 6144),
        ("vit_7b", 4096, 40, 12288),
    ],
)
def test_sizes_by_name(factory, width, depth, hidden):
    with meta_tensors():
        model = getattr(vision_transformer, factory)(patch_size=14, n_storage_tokens=2)
    assert (model.embed_dim, model.n_blocks, len(model.blocks)) == (width, depth, depth)
    assert model.blocks[-1].mlp.fc1.out_features == hidden
    assert model.patch_size == 14 and model.storage_tokens.shape == (1, 2, width)
    assert model.rope_embed.head_dim == (128 if factory == "vit_7b" else 64)
