"""Weights of the folds: loaded once, reloaded after changes, kept on the device, and the mean is unchanged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dinov3.layers.lora import apply_lora
from nnunetv2.inference import fold_weights
from nnunetv2.inference.fold_weights import FoldWeights
from tests.inference.test_whole_image_prediction import WholeImageNetwork, num_outputs, of_slices, predictor_of
from tests.inference.tiny_models import CPU


class Network(nn.Module):
    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), value))
        self.register_buffer("mean", torch.full((1,), value))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What is loaded into a network, in order."""
    seen: list[dict[str, torch.Tensor]] = []
    load = fold_weights.load_weights

    def note(network: nn.Module, weights: dict[str, torch.Tensor], source: str) -> None:
        seen.append(weights)
        load(network, weights, source)

    monkeypatch.setattr(fold_weights, "load_weights", note)
    return seen


def folds_of(*values: float) -> list[dict[str, torch.Tensor]]:
    return [Network(value).state_dict() for value in values]


def use(held: FoldWeights, network: nn.Module, folds: list[Any], number: int) -> None:
    with held.loaded(network, folds, number, CPU):
        for value in network.state_dict().values():
            assert torch.equal(value, folds[number]["mean"].expand_as(value))


def test_one_fold_is_loaded_for_the_first_image_only(loads: list, seeded: int) -> None:
    network, fold = WholeImageNetwork(num_outputs()), WholeImageNetwork(num_outputs())
    predictor = predictor_of(network, None, [fold.state_dict()])
    for _ in range(3):
        image = torch.randn(1, 2, 45, 30)
        expected = of_slices(fold, image).half()
        assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), expected)
    assert len(loads) == 1


def test_weights_loaded_in_between_are_replaced(loads: list, seeded: int) -> None:
    network, fold, other = (WholeImageNetwork(num_outputs()) for _ in range(3))
    predictor = predictor_of(network, None, [fold.state_dict()])
    image = torch.randn(1, 1, 45, 30)
    first = predictor.predict_logits_from_preprocessed_data(image)
    network.load_state_dict(other.state_dict())
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), first)
    predictor.list_of_parameters = [other.state_dict()]
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), of_slices(other, image).half())
    assert len(loads) == 3


def test_moving_the_network_is_no_change(loads: list) -> None:
    held, network, folds = FoldWeights(), Network(), folds_of(3.0)
    with held.loaded(network, folds, 0, CPU):
        network.double().float()  # as moving it to another device and back: new storage, new buffers
    use(held, network, folds, 0)
    assert len(loads) == 1


@pytest.mark.parametrize("change", ["network", "fold"])
def test_a_change_in_place_is_noticed(change: str, loads: list) -> None:
    held, network, folds = FoldWeights(), Network(), folds_of(3.0)
    use(held, network, folds, 0)
    with torch.no_grad():
        changed = [network.weight] if change == "network" else folds[0].values()
        for value in changed:
            value.add_(1)
    use(held, network, folds, 0)
    assert len(loads) == 2


def test_weights_whose_changes_are_not_counted_are_loaded_every_time(loads: list) -> None:
    held, network = FoldWeights(), Network()
    with torch.inference_mode():
        folds = [{"weight": torch.full((2,), 3.0), "mean": torch.full((1,), 3.0)}]
    use(held, network, folds, 0)
    use(held, network, folds, 0)
    assert len(loads) == 2


def test_a_failed_prediction_forgets(loads: list) -> None:
    held, network, folds = FoldWeights(), Network(), folds_of(3.0)
    with pytest.raises(ZeroDivisionError), held.loaded(network, folds, 0, CPU):
        raise ZeroDivisionError
    use(held, network, folds, 0)
    assert len(loads) == 2


def is_copy(loaded: dict, fold: dict) -> bool:
    return all(loaded[name] is not value and torch.equal(loaded[name], value) for name, value in fold.items())


def test_several_folds_are_copied_to_the_device_once(loads: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_weights, "free_bytes", lambda device: 10**9)
    held, network, folds = FoldWeights(), Network(), folds_of(3.0, 5.0)
    for number in (0, 1, 0, 1):
        use(held, network, folds, number)
    assert len(loads) == 4
    assert all(is_copy(loaded, fold) for loaded, fold in zip(loads, folds * 2, strict=True))
    assert loads[2] is loads[0]
    assert loads[3] is loads[1]
    folds[0]["weight"].fill_(7.0)
    folds[0]["mean"].fill_(7.0)
    use(held, network, folds, 0)


def test_folds_stay_in_main_memory_where_the_device_is_too_small(loads: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folds of 12 bytes fit into half of 48 bytes."""
    for free, fits in ((48, True), (47, False)):
        loads.clear()
        monkeypatch.setattr(fold_weights, "free_bytes", lambda device, free=free: free)
        held, network, folds = FoldWeights(), Network(), folds_of(3.0, 5.0)
        for number in (0, 1):
            use(held, network, folds, number)
        assert [loaded is fold for loaded, fold in zip(loads, folds, strict=True)] == [not fits] * 2


def test_copies_are_given_up_when_memory_is_short(loads: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_weights, "free_bytes", lambda device: 10**9)
    held, network, folds = FoldWeights(), Network(), folds_of(3.0, 5.0)
    use(held, network, folds, 0)
    held.free()
    use(held, network, folds, 1)
    assert loads[1] is folds[1]


def test_a_prediction_that_runs_out_of_memory_gives_up_the_copies(
    loads: list, monkeypatch: pytest.MonkeyPatch, seeded: int
) -> None:
    monkeypatch.setattr(fold_weights, "free_bytes", lambda device: 10**9)
    network = WholeImageNetwork(num_outputs())
    folds = [WholeImageNetwork(num_outputs()) for _ in range(2)]
    predictor = predictor_of(network, None, [fold.state_dict() for fold in folds])
    failures = iter([torch.OutOfMemoryError("fake")])

    def fail_once(*_: object) -> None:
        for error in failures:
            raise error

    image = torch.randn(1, 2, 45, 30)
    expected = sum(of_slices(fold, image).half() for fold in folds) / 2
    network.register_forward_pre_hook(fail_once)
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), expected)
    given = predictor.list_of_parameters
    assert [loaded is fold for loaded, fold in zip(loads, given, strict=True)] == [False, True]


class LoRANetwork(WholeImageNetwork):
    """A convolution after a block with LoRA."""

    def __init__(self) -> None:
        super().__init__(num_outputs())
        self.blocks = nn.ModuleList([nn.ModuleDict({"proj": nn.Linear(1, 1)})])
        apply_lora(self, r=2, lora_dropout=0.0, target_modules=["proj"])
        self.requires_grad_(True)
        nn.init.normal_(self.blocks[0]["proj"].lora_B["default"].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.blocks[0]["proj"](x.movedim(1, -1)).movedim(-1, 1))


def copy_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("num_folds", [1, 2])
def test_lora_is_added_to_the_weights_for_prediction(num_folds: int, loads: list, seeded: int) -> None:
    network, folds = LoRANetwork(), [LoRANetwork() for _ in range(num_folds)]
    image = torch.randn(1, 2, 45, 30)
    expected = sum(of_slices(fold, image).half() for fold in folds) / num_folds
    given = [copy_of(fold) for fold in folds]
    updates: list[int] = []
    network.blocks[0]["proj"].lora_A["default"].register_forward_hook(lambda *_: updates.append(1))
    predictor = predictor_of(network, None, given)
    for _ in range(2):
        logits = predictor.predict_logits_from_preprocessed_data(image)
        torch.testing.assert_close(logits, expected, atol=2e-3, rtol=1e-3)  # float16
    assert updates == []
    assert len(loads) == (1 if num_folds == 1 else 4)
    for fold, weights in zip(folds, given, strict=True):
        torch.testing.assert_close(weights, dict(fold.state_dict()), rtol=0, atol=0)
    network.load_state_dict(given[0])
    assert torch.equal(of_slices(network, image), of_slices(folds[0], image))


def test_weights_that_are_the_networks_own_stay_as_they_are(seeded: int) -> None:
    network = LoRANetwork()
    before, image = copy_of(network), torch.randn(1, 2, 45, 30)
    expected = of_slices(network, image).half()
    predictor = predictor_of(network, None, [network.state_dict()])
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), expected)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
