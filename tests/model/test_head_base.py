"""What the base of all heads rejects."""

from __future__ import annotations

from typing import ClassVar

import pytest
from torch import Tensor, nn

from nnunetv2.errors import UsageError
from nnunetv2.model.head import BackboneSpec, DenseHead, Features
from nnunetv2.model.head_config import DenseHeadConfig

SPEC = BackboneSpec(embed_dim=8, num_blocks=12, patch_size=16, num_heads=2, num_prefix_tokens=1, in_channels=3)


class Hidden(DenseHead):
    classifier: ClassVar[tuple[str, ...]] = ("classifier",)

    def __init__(self, name: str) -> None:
        super().__init__(DenseHeadConfig(), SPEC, 2)
        setattr(self, name, nn.Conv2d(8, 2, 1))

    def forward(self, features: Features) -> Tensor:
        return self.classify(features.maps[-1])


@pytest.mark.parametrize("name", ["classifier", "backbone", "forward"])
def test_a_module_that_a_class_attribute_would_hide_is_rejected(name):
    message = f"test_head_base.py: Hidden has a class attribute '{name}', which hides a module of that name"
    with pytest.raises(UsageError, match=message):
        Hidden(name)


def test_a_module_of_another_name_is_taken():
    assert isinstance(Hidden("classify").classify, nn.Conv2d)
