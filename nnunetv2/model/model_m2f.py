"""Mask2Former as a network for nnU-Net, under the name that plans know it by."""

from __future__ import annotations

from nnunetv2.model.query_network import QueryNetwork
from nnunetv2.model.vit_network import FlatNames


class M2FSegmentationModel(FlatNames, QueryNetwork):
    """The head `m2f` with its settings among those of `ViTNetwork`."""

    head_name = "m2f"
