"""VisionFM, foundation models for eight ophthalmic modalities, as timm builds them."""

from __future__ import annotations

from typing import ClassVar

from nnunetv2.model.backbone_families import ANY_IMAGE_SIZE, BackboneSize, miniature
from nnunetv2.model.backbone_shape import BackboneShape
from nnunetv2.model.backbones import TimmBackbone, register_backbone

_BASE = BackboneSize(
    "vit_base_patch16_224",
    None,
    BackboneShape(768, 12, 16),
    ANY_IMAGE_SIZE,
    request=(
        "download the encoder of your modality, such as VFM_Fundus_weights.pth, through "
        "https://github.com/ABILab-CUHK/VisionFM"
    ),
)


@register_backbone("visionfm")
class VisionFM(TimmBackbone):
    """One encoder per modality, from fundus photographs to MRI, pre-trained as iBOT.

    Source: Qiu et al. 2024, "Development and Validation of a Multimodal Multitask Vision Foundation Model for
    Generalist Ophthalmic Artificial Intelligence", doi:10.1056/AIoa2300221.
    """

    class Sizes:
        """The released size, and a miniature."""

        rows: ClassVar[dict[str, BackboneSize]] = {"tiny": miniature(_BASE), "base": _BASE}
