"""The residual connection with layer scale: the formula's values and gradients."""

from __future__ import annotations

import pytest
import torch

from dinov3.layers.scaled_residual import add_scaled


def inputs(of_update: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randn(2, 5, 4, requires_grad=True)
    update = torch.randn(2, 5, 4).to(of_update).requires_grad_()
    return tokens, update, torch.randn(4)


@pytest.mark.parametrize("is_autocast", [True, False])
@pytest.mark.parametrize("of_update", [torch.float32, torch.bfloat16])
def test_sum_and_gradients_are_those_of_the_formula(seeded: int, of_update: torch.dtype, is_autocast: bool) -> None:
    tokens, update, scale = inputs(of_update)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        found = add_scaled(tokens, update, scale)
    exact = [each.detach().double().requires_grad_() for each in (tokens, update)]
    expected = exact[0] + scale.double() * exact[1]
    factors = torch.randn(2, 5, 4)
    ours = torch.autograd.grad(found, (tokens, update), factors)
    right = torch.autograd.grad(expected, exact, factors.double())
    assert found.dtype == ours[0].dtype == torch.float32
    assert ours[1].dtype == of_update
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(ours[0], factors)
    assert torch.equal(ours[1], right[1].to(of_update)) or of_update == torch.float32
    torch.testing.assert_close(ours[1].double(), right[1], rtol=2**-8 if of_update == torch.bfloat16 else 1e-6, atol=0)


def test_a_trained_scale_gets_its_gradient(seeded: int) -> None:
    tokens, update, scale = inputs(torch.float32)
    add_scaled(tokens, update, scale.requires_grad_()).sum().backward()
    torch.testing.assert_close(scale.grad, update.detach().sum(dim=(0, 1)))
    assert torch.equal(update.grad, scale.detach().expand(2, 5, 4))
