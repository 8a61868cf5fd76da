"""Golden values of adapter, head and LoRA that no other test states; see the module of each part for the rest."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinov3.eval.segmentation.models.backbone.dinov3_adapter import DINOv3_Adapter
from dinov3.eval.segmentation.models.heads import mask2former_transformer_decoder
from dinov3.eval.segmentation.models.heads.mask2former_head import Mask2FormerHead
from dinov3.eval.segmentation.models.utils import ms_deform_attn
from dinov3.eval.segmentation.models.utils.ms_deform_attn import MSDeformAttn
from dinov3.hub.backbones import dinov3_vits16
from dinov3.layers.lora import apply_lora
from tests.dinov3.fake_backbone import FakeBackbone
from tests.dinov3.meta_tensors import meta_tensors

NAMES = ("1", "2", "3", "4")
CENTRES_OF_2_BY_2 = torch.tensor([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)])


def calls_of(module):
    """A list that fills with the arguments of every call of a module."""
    calls = []
    module.register_forward_pre_hook(lambda _, args, kwargs: calls.append((*args, *kwargs.values())), with_kwargs=True)
    return calls


def make_head(**kwargs):
    settings = {"num_heads": 4, "dim_feedforward": 48, "num_queries": 6, "num_encoder_layers": 1, **kwargs}
    return Mask2FormerHead(dict.fromkeys(NAMES, (8,)), 32, 3, **settings)


def test_fresh_deformable_attention_weighs_all_places_alike(seeded, monkeypatch):
    seen = {}

    def core(value, sizes, reference_points, offsets, logits):
        seen.update(offsets=offsets, weights=logits.softmax(dim=-1))
        return value.flatten(2)[:, : offsets.shape[1]]

    monkeypatch.setattr(ms_deform_attn, "fused_deformable_attention", core)
    attention, tokens = MSDeformAttn(d_model=16, n_levels=3, n_heads=4, n_points=4), torch.randn(2, 21, 16)
    sizes = ((4, 4), (2, 2), (1, 1))
    attention(tokens, torch.full((1, 21, 1, 2), 0.5), tokens, sizes)
    assert_close(seen["weights"], torch.full((2, 21, 4, 3 * 4), 1 / 12))
    first_head = seen["offsets"][0, 0, 0]  # in cells of each map
    assert_close(first_head, torch.tensor([(1.0, 0), (2, 0), (3, 0), (4, 0)]).expand(3, -1, -1), atol=1e-5, rtol=0)


def test_adapter_refers_to_the_centres_of_its_own_cells_on_one_map(seeded):
    adapter = DINOv3_Adapter(FakeBackbone(embed_dim=32), (0, 1, 2, 3), conv_inplane=8).eval()
    calls = calls_of(adapter.interactions[0].extractor.attn)
    adapter(torch.randn(2, 3, 64, 64))
    ((_, reference, tokens, sizes),) = calls
    assert reference.shape == (1, 8 * 8 + 4 * 4 + 2 * 2, 1, 2)
    assert_close(reference[0, -4:, 0], CENTRES_OF_2_BY_2)
    assert (tuple(sizes), tokens.shape[1]) == (((4, 4),), 16)


def test_pixel_decoder_refers_to_the_same_centre_on_each_of_its_maps(seeded):
    head = make_head(num_decoder_layers=1)
    calls = calls_of(head.pixel_decoder.encoder.encoder.layers[0].self_attn)
    head({name: torch.randn(2, 8, 16 >> scale, 16 >> scale) for scale, name in enumerate(NAMES)})
    ((query, reference, _, sizes),) = calls
    assert tuple(sizes) == ((2, 2), (4, 4), (8, 8))
    assert reference.expand(len(query), -1, -1, -1).shape == (2, 84, 3, 2)
    assert_close(reference[0, :4], CENTRES_OF_2_BY_2[:, None].expand(-1, 3, -1))


def test_adapter_makes_5376_queries_of_512_pixels_squared(seeded):
    adapter = DINOv3_Adapter(FakeBackbone(embed_dim=32), (0, 1, 2, 3), conv_inplane=4, use_extra_extractor=False).eval()
    calls = calls_of(adapter.interactions[0])
    with torch.no_grad():
        maps = adapter(torch.randn(1, 3, 512, 512))
    assert calls[0][0].shape == (1, 5376, 32)
    assert [tuple(maps[name].shape[-2:]) for name in NAMES] == [(128, 128), (64, 64), (32, 32), (16, 16)]


def test_queries_whose_masks_cover_nothing_look_everywhere(seeded, monkeypatch):
    predictor = make_head(num_decoder_layers=9).predictor
    levels, pixels = [torch.randn(2, 32, 2 << i, 3 << i) for i in range(3)], torch.full((2, 32, 16, 24), -1.0)
    for layer in predictor.mask_embed.layers:
        nn.init.zeros_(layer.weight)
    nn.init.ones_(predictor.mask_embed.layers[-1].bias)
    masked = predictor(levels, pixels)
    assert len(masked["aux_outputs"]) == 9
    assert all((each["pred_masks"] < 0).all() for each in (masked, *masked["aux_outputs"]))
    monkeypatch.setattr(mask2former_transformer_decoder, "attention_mask", lambda masks, size: None)
    unmasked = predictor(levels, pixels)
    assert_close(masked["pred_logits"], unmasked["pred_logits"])
    gradient = torch.autograd.grad(masked["pred_logits"].square().sum(), predictor.query_feat.weight)[0]
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize(
    ("targets", "number", "num_parameters"), [(["qkv"], 12, 147_456), (["qkv", "proj"], 24, 221_184)]
)
@pytest.mark.parametrize("source", ["dinov3", "timm"])
def test_lora_of_rank_8_on_vit_s(source, targets, number, num_parameters):
    with meta_tensors():
        if source == "timm":
            timm = pytest.importorskip("timm")
            backbone = timm.create_model("vit_small_patch16_dinov3", num_classes=0)
        else:
            backbone = dinov3_vits16(pretrained=False)
        apply_lora(backbone, r=8, target_modules=targets)
    adapted = [name for name, _ in backbone.named_modules() if name.endswith("lora_A.default")]
    assert len(adapted) == number
    assert all(name.split(".attn.")[0].removeprefix("blocks.").isdigit() for name in adapted)
    assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) == num_parameters
