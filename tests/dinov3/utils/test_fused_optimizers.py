"""Steps that the device skips itself; torch has the fused optimisers on the CPU, too."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dinov3.utils.fused_optimizers import (
    fused_on,
    skips_on_device,
    start_momentum,
    step_unless,
    with_own_implementation,
)

Make = Callable[..., torch.optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda parameters, **options: torch.optim.SGD(
        parameters, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01, **options
    ),
    "adamw": lambda parameters, **options: torch.optim.AdamW(parameters, 0.1, **options),
    "adam": lambda parameters, **options: torch.optim.Adam(parameters, 0.1, amsgrad=True, **options),
}
GOOD, BAD = torch.tensor(False), torch.tensor(True)


@pytest.fixture(params=OPTIMIZERS)
def make(request: pytest.FixtureRequest) -> Make:
    return OPTIMIZERS[request.param]


@pytest.fixture
def network(seeded: int) -> nn.Linear:
    return nn.Linear(3, 2)


def gradient(network: nn.Module, factor: float = 1.0) -> None:
    network.zero_grad()
    (network(torch.tensor([[1.0, -2.0, 0.5]])).square().sum() * factor).backward()


def step(network: nn.Module, optimizer: torch.optim.Optimizer, is_bad: torch.Tensor, factor: float = 1.0) -> None:
    gradient(network, factor)
    start_momentum(optimizer)
    step_unless(optimizer, is_bad)


def everything(network: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    state = optimizer.state_dict()["state"]
    moments = [value for values in state.values() for value in values.values() if isinstance(value, torch.Tensor)]
    return [tensor.detach().clone() for tensor in (*network.parameters(), *moments)]


def test_only_cuda_gets_the_fused_kernels() -> None:
    assert fused_on(torch.device("cuda")) is True
    assert fused_on(torch.device("cpu")) is None
    assert fused_on(torch.device("mps")) is None


def test_a_skipped_step_changes_nothing(make: Make, network: nn.Linear) -> None:
    optimizer = make(network.parameters(), fused=True)
    step(network, optimizer, GOOD)
    before = everything(network, optimizer)
    step(network, optimizer, BAD, factor=float("nan"))
    assert all(map(torch.equal, everything(network, optimizer), before))
    step(network, optimizer, GOOD)
    assert not torch.equal(everything(network, optimizer)[0], before[0])


def test_a_skipped_first_step_leaves_no_trace_in_the_later_ones(make: Make, network: nn.Linear) -> None:
    twin = copy.deepcopy(network)
    optimizer, of_twin = make(network.parameters(), fused=True), make(twin.parameters(), fused=True)
    step(network, optimizer, BAD, factor=float("inf"))
    for _ in range(3):
        step(network, optimizer, GOOD)
        gradient(twin)
        of_twin.step()  # without the buffers of zeros: they change no bit
    assert all(map(torch.equal, everything(network, optimizer), everything(twin, of_twin)))


def test_groups_decide_whether_the_device_skips(make: Make, network: nn.Linear) -> None:
    plain, fused = make(network.parameters()), make(network.parameters(), fused=True)
    assert (skips_on_device(plain), skips_on_device(fused)) == (False, True)
    fused.load_state_dict(plain.state_dict())  # brings the implementation of the file
    assert not skips_on_device(fused)


@pytest.mark.parametrize("is_fused", [True, False])
def test_a_loaded_state_keeps_the_implementation(make: Make, network: nn.Linear, is_fused: bool) -> None:
    stored = make(network.parameters(), fused=not is_fused)
    gradient(network)
    stored.step()
    stored.param_groups[0]["lr"] = 0.03
    optimizer = make(network.parameters(), fused=is_fused)
    state = stored.state_dict()
    optimizer.load_state_dict(with_own_implementation(optimizer, state))
    assert optimizer.param_groups[0]["fused"] is is_fused
    assert optimizer.param_groups[0]["lr"] == 0.03
    assert state["param_groups"][0]["fused"] is not is_fused  # it belongs to the caller
    gradient(network)
    optimizer.step()


def test_a_state_of_other_groups_is_still_rejected_by_torch(network: nn.Linear) -> None:
    stored = torch.optim.SGD([{"params": [parameter]} for parameter in network.parameters()], 0.1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(with_own_implementation(optimizer, stored.state_dict()))
