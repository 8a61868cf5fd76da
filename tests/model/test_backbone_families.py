"""The table of backbones against what timm and the `dinov3` package build."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from nnunetv2.model.backbone_families import FAMILIES, settings_for
from nnunetv2.model.backbone_shape import BackboneShape, shape_of
from nnunetv2.model.backbones import create_backbone

timm = pytest.importorskip("timm")
ROWS = [(family, size) for family, sizes in FAMILIES.items() for size in sizes]
ALWAYS = {("dinov2", "small_reg"), ("dinov3", "large"), ("dinov3_native", "7b"), ("retfound", "dinov2_large")}


@pytest.mark.parametrize(
    ("family", "size"),
    [pytest.param(*row, marks=[] if row in ALWAYS or "tiny" in row[1] else [pytest.mark.slow]) for row in ROWS],
)
def test_a_size_is_built_with_the_shape_in_the_table(family, size):
    row = FAMILIES[family][size]
    with torch.device("meta"):
        backbone = create_backbone(family, size)
    assert shape_of(backbone.vit.state_dict()) == row.shape
    assert (backbone.embed_dim, backbone.num_blocks) == (row.shape.width, row.shape.depth)
    assert backbone.patch_size == row.shape.patch_size
    assert backbone.num_prefix_tokens == 1 + row.shape.num_registers


@pytest.mark.parametrize(("family", "size"), [row for row in ROWS if FAMILIES[row[0]][row[1]].weights])
def test_released_weights_are_on_timms_hub(family, size):
    row = FAMILIES[family][size]
    assert timm.get_pretrained_cfg(f"{row.timm_name}.{row.weights}").hf_hub_id is not None


def test_a_size_has_released_weights_or_is_a_miniature_or_says_whom_to_ask():
    without = {row for row in ROWS if not (FAMILIES[row[0]][row[1]].weights or FAMILIES[row[0]][row[1]].request)}
    assert without == {row for row in ROWS if row[1].startswith("tiny")}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (BackboneShape(768, 12, 14), ["model.backbone=dinov2 model.backbone_size=base"]),
        (BackboneShape(768, 12, 16), ["model.backbone=visionfm model.backbone_size=base"]),
        (
            BackboneShape(1024, 24, 14),
            [
                "model.backbone=dinov2 model.backbone_size=large",
                "model.backbone=retfound model.backbone_size=dinov2_large",
            ],
        ),
        (BackboneShape(192, 12, 16), []),
    ],
)
def test_the_settings_for_a_shape_are_found(shape, expected):
    assert settings_for(shape) == expected


def test_the_table_and_the_words_of_the_settings_load_without_torch():
    code = (
        "import sys, nnunetv2.model.backbone_families, nnunetv2.model.input_choices; "
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
