"""What a head returns is checked where it returns it, with the head, its file and what it should return."""

from __future__ import annotations

import pytest
import torch

from nnunetv2.errors import UsageError
from nnunetv2.model.chosen_blocks import chosen_blocks
from nnunetv2.model.head_config import DenseHeadConfig, block_choices, default_blocks
from tests.model.heads.small import small_network


@pytest.mark.parametrize(
    ("output", "described"),
    [
        (torch.zeros(1, 4, 2, 2), r"a tensor of shape \(1, 4, 2, 2\)"),
        (torch.zeros(1, 3, 4), r"a tensor of shape \(1, 3, 4\)"),
        ([torch.zeros(1, 3, 2, 2)], "a list"),
        ({"logits": torch.zeros(1)}, r"a dictionary with logits \(1,\)"),
    ],
)
def test_other_logits_are_rejected(output, described, monkeypatch):
    network = small_network("linear", 3)
    monkeypatch.setattr(network.head, "forward", lambda features: output)
    wanted = r"it must return logits of shape \(batch, 3, height, width\)"
    with pytest.raises(UsageError, match=rf"The head linear \(.*linear.py\) returned {described}; {wanted}"):
        network(torch.zeros(1, 1, 32, 32))


@pytest.mark.parametrize(
    "change",
    [
        lambda output: output["pred_masks"],
        lambda output: {"pred_logits": output["pred_logits"], "pred_mask": output["pred_masks"], "aux_outputs": []},
        lambda output: output | {"pred_logits": output["pred_logits"][..., :-1]},
        lambda output: output | {"pred_masks": output["pred_masks"][0]},
    ],
)
@pytest.mark.parametrize("return_queries", [True, False])
def test_other_queries_are_rejected(change, return_queries, monkeypatch):
    network = small_network("eomt", 3)
    forward = network.head.forward
    monkeypatch.setattr(network.head, "forward", lambda features: change(forward(features)))
    with pytest.raises(
        UsageError, match=r"The head eomt .* it must return a dictionary with pred_logits \(batch, queries, 4"
    ):
        network(torch.zeros(1, 1, 32, 32), return_queries=return_queries)


@pytest.mark.parametrize(
    ("number", "default", "of_12", "of_24"),
    [(2, "EVEN_INTERVALS", [5, 11], [11, 23]), (3, "EVEN_INTERVALS", [3, 7, 11], [7, 15, 23])],
)
def test_a_head_may_read_another_number_of_blocks(number, default, of_12, of_24):
    config = type("Config", (DenseHeadConfig,), {"num_blocks": number})
    assert default_blocks(config) == default
    assert block_choices(config) == (default,)
    assert chosen_blocks(12, None, config) == of_12
    assert chosen_blocks(24, default, config) == of_24
    with pytest.raises(ValueError, match=f"names 4 blocks; name {number}"):
        chosen_blocks(12, [2, 5, 8, 11], config)
