"""Networks that plans describe wrongly, or too large, are refused."""

from __future__ import annotations

import pytest

from nnunetv2.errors import DataError
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from tests.training.tiny_dataset import tiny_plans


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_stages": "three"}, "PlainConvUNet cannot be built from the arch_kwargs of the plans"),
        ({"strides": [[1, 1]]}, "cannot be built"),
        ({"no_such_argument": 1}, "cannot be built .*no_such_argument"),
        ({"n_conv_per_stage": [1, 10**9, 1]}, "n_conv_per_stage=.*; the limit is 200"),
        ({"features_per_stage": [4, 8, 10**12]}, "features_per_stage=.*; the limit is"),
        ({"features_per_stage": [2**19, 2**19, 2**19]}, r"has .*e\+\d+ parameters; the limit is 1e\+10"),
    ],
)
def test_arguments_that_make_no_network_are_one_line(changes: dict, message: str) -> None:
    architecture = tiny_plans()["configurations"]["2d"]["architecture"]
    keywords = {**architecture["arch_kwargs"], **changes}
    with pytest.raises(DataError, match=message):
        get_network_from_plans(
            architecture["network_class_name"],
            keywords,
            architecture["_kw_requires_import"],
            1,
            3,
            deep_supervision=True,
        )
