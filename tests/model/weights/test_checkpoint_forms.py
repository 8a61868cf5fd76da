"""Every layout of a file of weights fills the backbone, is reported, and gives the features of its own library."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from nnunetv2.model.backbone import Backbone
from nnunetv2.model.backbones import TimmBackbone, create_backbone, find_backbone
from nnunetv2.model.weights.backbone_weights import load_backbone_weights
from tests.model.weights import checkpoint_layouts as layouts

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

# layout: family and size, what the line in the log says of it
CASES = {
    layouts.timm_dinov2: ("dinov2", "tiny", "62 tensors taken, 0 left out, 0 resampled"),
    layouts.meta_dinov2: ("dinov2", "tiny", r"62 tensors taken, 1 left out \(mask_token\), 0 resampled"),
    layouts.meta_dinov2_with_registers: ("dinov2", "tiny_reg", r"63 tensors taken, 1 left out \(mask_token\)"),
    layouts.dinov2_training: (
        "dinov2",
        "tiny",
        r"\(entry teacher, prefix backbone.\): 62 .* 11 left out \(mask_token, 5 dino_head.\*, 5 ibot_head.\*\)",
    ),
    layouts.hf_dinov2: ("dinov2", "tiny", r"78 tensors taken, 1 left out \(embeddings.mask_token\)"),
    layouts.hf_dinov2_with_registers: (
        "dinov2",
        "tiny_reg",
        r"\(prefix dinov2_with_registers.\): 79 .* 3 left out .*2 classifier.\*",
    ),
    layouts.retfound_mae: ("retfound", "tiny", r"\(entry model\): 54 tensors taken, 32 left out \(mask_token, decoder"),
    layouts.retfound_classifier: (
        "retfound",
        "tiny",
        r"\(entry model\): 54 .* 4 left out \(2 head.\*, 2 fc_norm.\*\)",
    ),
    layouts.hf_mae: ("retfound", "tiny", r"\(prefix vit.\): 70 tensors taken, .* left out"),
    layouts.retfound_dinov2: ("dinov2", "tiny", r"\(entry teacher, prefix backbone.\): 62 tensors taken, 11 left out"),
    layouts.visionfm: ("visionfm", "tiny", r"\(entry teacher, prefix module.backbone.\): 54 .* 4 left out \(4 head.\*"),
    layouts.visionfm_student: (
        "visionfm",
        "tiny",
        r"\(entry student, prefix module.backbone.\): 54 .* 6 left out \(masked_embed, 5 head.\*\)",
    ),
    layouts.meta_dinov3: (
        "dinov3",
        "tiny",
        r"58 tensors taken, 10 left out \(mask_token, rope_embed.periods, 4 attn.qkv.bias, 4 attn.qkv.bias_mask\)",
    ),
    layouts.meddinov3: ("dinov3", "tiny", r"\(entry teacher, prefix backbone.\): 58 tensors taken, 12 left out"),
    layouts.hf_dinov3: ("dinov3", "tiny", r"66 tensors taken, 9 left out \(embeddings.mask_token, 4 attention.q_proj"),
}


def of_the_images(family: str, size: str) -> Backbone:
    """A miniature whose position embedding, if it has one, is for the images of the layouts."""
    torch.manual_seed(7)
    row = find_backbone(family, size)
    if row.shape.positions == "rotary":
        return create_backbone(family, size).eval()
    options = {**row.options, "img_size": layouts.GRID * row.shape.patch_size}
    return TimmBackbone(timm.create_model(row.timm_name, num_classes=0, **options)).eval()


def tokens(backbone: Backbone, image: torch.Tensor) -> torch.Tensor:
    patches, class_token = backbone.get_intermediate_layers(image, return_class_token=True)[0]
    return torch.cat([class_token[:, None], patches], dim=1)


@pytest.mark.parametrize("layout", CASES, ids=lambda layout: layout.__name__)
def test_a_layout_loads_reports_and_gives_the_features_of_its_own_library(tmp_path, caplog, layout):
    family, size, report = CASES[layout]
    oracle = layout(tmp_path / "weights")
    backbone = of_the_images(family, size)
    with caplog.at_level(logging.INFO):
        loaded = load_backbone_weights(backbone, tmp_path / "weights")
    assert re.search(report, str(loaded)), str(loaded)
    assert [record.message for record in caplog.records if "Backbone weights" in record.message] == [str(loaded)]
    image = torch.randn(2, 3, *[layouts.GRID * backbone.patch_size] * 2)
    with torch.no_grad():
        torch.testing.assert_close(tokens(backbone, image), oracle(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("layout", "report"),
    [
        (layouts.meta_dinov3, "68 tensors taken, 0 left out"),
        (layouts.meddinov3, r"60 tensors taken, 10 left out \(5 dino_head.\*, 5 ibot_head.\*\)"),
        (layouts.hf_dinov3, "75 tensors taken, 0 left out"),
        (layouts.satellite_dinov3, r"60 tensors taken, 2 left out \(2 local_cls_norm.\*\)"),
        (layouts.dinov3_with_biased_keys, "64 tensors taken, 0 left out"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_in_tree_backbone_takes_the_files_of_dinov3(tmp_path, layout, report):
    oracle = layout(tmp_path / "weights")
    torch.manual_seed(7)
    backbone = create_backbone("dinov3_native", "tiny").eval()
    assert re.search(report, str(load_backbone_weights(backbone, tmp_path / "weights")))
    image = torch.randn(2, 3, 48, 80)
    with torch.no_grad():
        torch.testing.assert_close(tokens(backbone, image), oracle(image), atol=1e-5, rtol=1e-5)


def test_both_implementations_of_dinov3_give_the_same_features_from_timms_file(tmp_path):
    torch.manual_seed(7)
    timms, in_tree = (create_backbone(family, "tiny").eval() for family in ("dinov3", "dinov3_native"))
    save_file(layouts.perturbed(timms.vit).state_dict(), tmp_path / "weights")
    load_backbone_weights(in_tree, tmp_path / "weights")
    image = torch.randn(1, 3, 32, 80)
    with torch.no_grad():
        torch.testing.assert_close(tokens(in_tree, image), tokens(timms, image), atol=1e-5, rtol=1e-5)


def test_gated_networks_of_hugging_face_and_meta_are_joined_in_timms_order(tmp_path):
    config = transformers.Dinov2Config(**layouts.HF_SIZE, patch_size=14, image_size=70, use_swiglu_ffn=True)
    model = layouts.perturbed(transformers.Dinov2Model(config))
    model.save_pretrained(tmp_path / "on the hub")
    on_the_hub = load_file(tmp_path / "on the hub" / "model.safetensors")
    assert "encoder.layer.0.mlp.weights_in.weight" in on_the_hub
    save_file(model.state_dict(), tmp_path / "of transformers 5")
    hidden = on_the_hub["encoder.layer.0.mlp.weights_in.weight"].shape[0]
    vit = layouts.timm_vit(
        "vit_giant_patch14_dinov2", dynamic_img_size=True, mlp_ratio=hidden / layouts.WIDTH, init_values=0.1
    )
    image = torch.randn(1, 3, 70, 70)
    for name in ("on the hub", "of transformers 5"):
        backbone = TimmBackbone(vit)
        load_backbone_weights(backbone, tmp_path / name)
        with torch.no_grad():
            expected = layouts.hf_tokens(model)(image)
            torch.testing.assert_close(tokens(backbone, image), expected, atol=1e-5, rtol=1e-5)
    metas = {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): t for name, t in vit.state_dict().items()}
    torch.save(metas | {"mask_token": torch.ones(1, layouts.WIDTH)}, tmp_path / "metas")
    backbone = TimmBackbone(layouts.timm_vit("vit_giant_patch14_dinov2", mlp_ratio=hidden / layouts.WIDTH))
    load_backbone_weights(backbone, tmp_path / "metas")
    torch.testing.assert_close(backbone.vit.state_dict(), vit.state_dict(), rtol=0, atol=0)


def test_a_folder_with_a_pickled_file_is_read(tmp_path):
    source = create_backbone("visionfm", "tiny")
    torch.save(source.vit.state_dict(), tmp_path / "pytorch_model.bin")
    target = create_backbone("visionfm", "tiny")
    load_backbone_weights(target, tmp_path)
    torch.testing.assert_close(target.vit.state_dict(), source.vit.state_dict(), rtol=0, atol=0)
