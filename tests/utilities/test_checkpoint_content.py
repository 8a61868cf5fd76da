from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2.errors import DataError
from nnunetv2.utilities.checkpoint_content import check_resumable


def content(**changed: Any) -> dict[str, Any]:
    whole = {
        "network_weights": {"weight": torch.ones(1)},
        "current_epoch": 3,
        "logging": {"train_losses": [0.5, 0.4, 0.3]},
        "_best_ema": None,
    }
    return whole | changed


@pytest.mark.parametrize("changed", [{}, {"current_epoch": np.int64(3)}, {"_best_ema": np.float32(0.5), "budget": {}}])
def test_own_and_upstream_checkpoints_can_be_resumed(changed: dict[str, Any]) -> None:
    check_resumable(content(**changed), "checkpoint_latest.pth")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"network_weights": [1]}, r'^x\.pth: "network_weights" are .*they must map names to tensors'),
        ({"inference_allowed_mirroring_axes": (0, 3)}, r'^x\.pth: "inference_allowed_mirroring_axes" is \(0, 3\)'),
        ({"current_epoch": -1}, r'^x\.pth: "current_epoch" is -1; it must be a number of epochs'),
        ({"current_epoch": 2.5}, r'"current_epoch" is 2\.5'),
        ({"current_epoch": True}, r'"current_epoch" is True'),
        ({"logging": [0.5]}, r'"logging" is \[0\.5\]; it must map names to a list'),
        ({"logging": {"train_losses": 0.5}}, '"logging" is .*train_losses'),
        ({"_best_ema": "0.5"}, r'"_best_ema" is .0\.5.; it must be a Dice score or None'),
        ({"budget": [1]}, r'"budget" is \[1\]; it must map names to values'),
        ({"trained_with": "plans"}, '"trained_with" is .plans.'),
    ],
)
def test_unusable_entries_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_resumable(content(**changed), "x.pth")


@pytest.mark.parametrize("entry", ["network_weights", "current_epoch", "logging", "_best_ema"])
def test_missing_entries_are_named(entry: str) -> None:
    rest = {name: value for name, value in content().items() if name != entry}
    with pytest.raises(DataError, match=f"x.pth is no checkpoint of nnU-Net, it has no {entry}$"):
        check_resumable(rest, "x.pth")
