"""EoMT as a network for nnU-Net, under its name in plans."""

from __future__ import annotations

from nnunetv2.model.heads.eomt import annealed_probabilities, without_rotation
from nnunetv2.model.query_network import QueryNetwork
from nnunetv2.model.vit_network import FlatNames

__all__ = ["EoMTSegmentationModel", "annealed_probabilities", "without_rotation"]


class EoMTSegmentationModel(FlatNames, QueryNetwork):
    """`ViTNetwork` with the head `eomt`; the head's settings are direct arguments."""

    head_name = "eomt"
