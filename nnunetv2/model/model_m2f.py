"""Mask2Former as a network for nnU-Net, under its name in plans."""

from __future__ import annotations

from nnunetv2.model.query_network import QueryNetwork
from nnunetv2.model.vit_network import FlatNames


class M2FSegmentationModel(FlatNames, QueryNetwork):
    """`ViTNetwork` with the head `m2f`; the head's settings are direct arguments."""

    head_name = "m2f"
