"""The adapter: sizes, names of released weights, and what happens to a frozen or trained backbone."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from dinov3.eval.segmentation.models.backbone.dinov3_adapter import DINOv3_Adapter
from tests.dinov3.fake_backbone import FakeBackbone
from tests.dinov3.meta_tensors import meta_tensors

BLOCKS = (0, 1, 2, 3)


def make_adapter(**kwargs):
    backbone = FakeBackbone(**{key: kwargs.pop(key) for key in ("embed_dim", "patch_size") if key in kwargs})
    return DINOv3_Adapter(backbone, BLOCKS, **kwargs)


def own_state(adapter):
    return {key: value for key, value in adapter.state_dict().items() if not key.startswith("backbone.")}


@pytest.mark.parametrize(
    ("embed_dim", "num_parameters"),
    [(384, 3_698_432), (768, 10_193_984), (1024, 16_654_272), (1280, 24_818_496), (4096, 227_084_736)],
)
def test_adapter_has_the_tensors_of_released_weights(embed_dim, num_parameters):
    with meta_tensors():
        adapter = make_adapter(embed_dim=embed_dim)
    assert len(own_state(adapter)) == 187
    own = [value.numel() for key, value in adapter.named_parameters() if not key.startswith("backbone.")]
    assert sum(own) == num_parameters


def test_adapter_names_and_shapes_are_those_of_released_weights():
    with meta_tensors():
        state = own_state(make_adapter(embed_dim=384))
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    expected = {
        "level_embed": (3, 384),
        "spm.stem.0.weight": (64, 3, 3, 3),
        "spm.stem.7.running_var": (64,),
        "spm.conv4.0.weight": (256, 256, 3, 3),
        "spm.conv2.1.num_batches_tracked": (),
        "spm.fc1.weight": (384, 64, 1, 1),
        "spm.fc4.bias": (384,),
        "interactions.0.extractor.query_norm.weight": (384,),
        "interactions.1.extractor.attn.sampling_offsets.weight": (128, 384),
        "interactions.1.extractor.attn.attention_weights.bias": (64,),
        "interactions.2.extractor.attn.value_proj.weight": (192, 384),
        "interactions.2.extractor.attn.output_proj.weight": (384, 192),
        "interactions.3.extractor.ffn.fc1.weight": (96, 384),
        "interactions.3.extra_extractors.1.ffn.dwconv.dwconv.weight": (96, 1, 3, 3),
        "interactions.3.extra_extractors.0.ffn_norm.bias": (384,),
        "up.weight": (384, 384, 2, 2),
        "norm4.running_mean": (384,),
    }
    assert {key: shapes.get(key) for key in expected} == expected
    assert not any(key.startswith("interactions.2.extra_extractors") for key in shapes)


def test_adapter_returns_four_scales_for_images_that_are_not_square(seeded):
    maps = make_adapter()(torch.randn(1, 3, 64, 96))
    assert {name: tuple(level.shape) for name, level in maps.items()} == {
        "1": (1, 64, 16, 24),
        "2": (1, 64, 8, 12),
        "3": (1, 64, 4, 6),
        "4": (1, 64, 2, 3),
    }


def test_an_image_of_512_has_5376_tokens(seeded):
    adapter = make_adapter(embed_dim=32, conv_inplane=8)
    shapes = []
    adapter.interactions[0].extractor.attn.register_forward_hook(
        lambda _, inputs, output: shapes.extend([tuple(inputs[1].shape), tuple(output.shape)])
    )
    with torch.no_grad():
        maps = adapter(torch.randn(1, 3, 512, 512))
    assert [maps[name].shape[-1] for name in "1234"] == [128, 64, 32, 16]
    assert shapes == [(1, 5376, 1, 2), (1, 5376, 32)]  # reference points, tokens


def test_adapter_refuses_other_sizes_and_names_the_next():
    with pytest.raises(ValueError, match="50 x 64 was given .* multiples of 32: pad or resize it to 64 x 64"):
        make_adapter()(torch.zeros(1, 3, 50, 64))


def test_parts_of_the_adapter_can_be_left_out(seeded):
    adapter = make_adapter(with_cffn=False, use_extra_extractor=False, add_vit_feature=False)
    assert not any("ffn" in name or "extra_extractors" in name for name in own_state(adapter))
    assert adapter(torch.randn(1, 3, 64, 64))["2"].shape == (1, 64, 8, 8)


def test_adapter_refuses_other_than_four_layers():
    with pytest.raises(ValueError, match=r"1 backbone layers \[3\] were given to the adapter; give 4"):
        DINOv3_Adapter(FakeBackbone(), [3])


@pytest.mark.parametrize("patch_size", [8, 14, 16, 32])
def test_adapter_takes_any_patch_size(patch_size, seeded):
    adapter = make_adapter(patch_size=patch_size)
    seen = []
    adapter.backbone.patch_embed.proj.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[-2:]))
    maps = adapter(torch.randn(2, 3, 64, 96))
    assert maps["4"].shape == (2, 64, 2, 3)
    assert tuple(seen[0]) == ((70, 98) if patch_size == 14 else (64, 96))


def test_frozen_backbone_gets_no_gradient_and_stays_in_eval_mode(seeded):
    adapter = make_adapter().train()
    assert adapter.training
    assert adapter.spm.training
    assert not any(module.training for module in adapter.backbone.modules())
    sum(level.square().mean() for level in adapter(torch.randn(2, 3, 64, 64)).values()).backward()
    assert all(parameter.grad is None for parameter in adapter.backbone.parameters())
    without = [
        name
        for name, parameter in adapter.named_parameters()
        if parameter.grad is None and not name.startswith("backbone.")
    ]
    assert not without


def test_backbone_that_is_trained_gets_gradients_and_follows_train(seeded):
    adapter = make_adapter(freeze_backbone=False).train()
    assert adapter.backbone.training
    sum(level.square().mean() for level in adapter(torch.randn(2, 3, 64, 64)).values()).backward()
    assert all(parameter.grad is not None for parameter in adapter.backbone.parameters())
    assert not adapter.eval().backbone.training


def test_one_parameter_that_is_trained_is_enough_for_gradients(seeded):
    adapter = make_adapter()
    adapter.backbone.blocks[1].attn.qkv.bias.requires_grad_()
    adapter(torch.randn(2, 3, 64, 64))["1"].square().mean().backward()
    assert adapter.backbone.blocks[1].attn.qkv.bias.grad.abs().sum() > 0
    assert adapter.backbone.blocks[0].attn.qkv.bias.grad is None


def test_gradients_reach_an_image_that_wants_them_through_a_frozen_backbone(seeded):
    adapter = make_adapter().eval()
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    torch.nn.init.zeros_(adapter.spm.stem[0].weight)  # leaves the path through the backbone alone
    adapter(image)["1"].square().mean().backward()
    assert image.grad.abs().sum() > 0


def test_checkpointing_changes_neither_output_nor_gradients(seeded):
    kept, recomputed = make_adapter(with_cp=False), make_adapter(with_cp=True)
    recomputed.load_state_dict(kept.state_dict())
    image = torch.randn(2, 3, 64, 64)
    gradients = []
    for adapter in (kept, recomputed):
        torch.manual_seed(0)  # drop path
        maps = adapter.train()(image)
        sum(level.square().mean() for level in maps.values()).backward()
        gradients.append([p.grad for p in adapter.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for left, right in zip(*gradients, strict=True):
        assert_close(left, right)


def test_released_weights_fit_after_conversion_to_synchronised_norms():
    adapter = make_adapter()
    names = set(adapter.state_dict())
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(adapter)
    assert isinstance(converted.norm1, torch.nn.SyncBatchNorm)
    assert set(converted.state_dict()) == names
