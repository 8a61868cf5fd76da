"""Values that are known on both sides, and values that arrive later."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dinov3.utils import host_copies
from dinov3.utils.host_copies import LateScalar, LateValues, on_host, to_device

META = torch.device("meta")  # stands for a device that cannot be read


class Late(LateValues):
    """Not there before `read` is called."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__(values)
        self.reads = 0

    def read(self) -> np.ndarray:
        self.reads += 1
        return super().read()


def test_a_moved_tensor_knows_its_source_until_it_is_written_to() -> None:
    source = torch.arange(3)
    moved = to_device(source, META)
    assert on_host(moved) is source
    moved.add_(1)
    assert on_host(moved) is moved


def test_what_was_not_moved_is_its_own_source() -> None:
    source = torch.arange(3)
    assert to_device(source, torch.device("cpu")) is source
    assert on_host(source) is source
    assert on_host(source.to(META)).device == META


def test_tensors_of_inference_mode_know_their_source() -> None:
    source = torch.arange(3)
    with torch.inference_mode():
        assert on_host(to_device(source, META)) is source


def test_values_of_the_cpu_are_there() -> None:
    values = LateValues(torch.tensor([1.5, 2.5]))
    assert values.is_read
    assert values.read().tolist() == [1.5, 2.5]
    assert isinstance(LateScalar.of(torch.tensor(2.5, dtype=torch.bfloat16, requires_grad=True)), np.ndarray)


def test_values_of_the_gpu_wait_for_their_event_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []

    class Event:
        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            waits.append(self)

    class OnGpu:
        device = torch.device("cuda")

        def to(self, device: str, non_blocking: bool) -> torch.Tensor:
            assert (device, non_blocking) == ("cpu", True)
            return torch.tensor([3.0])

    monkeypatch.setattr(host_copies.torch.cuda, "Event", Event)
    values = LateValues(OnGpu())
    assert not values.is_read
    assert waits == []
    assert values.read() == values.read() == 3.0
    assert values.is_read
    assert len(waits) == 1


def test_a_late_scalar_waits_only_for_who_needs_its_value() -> None:
    values = Late(torch.tensor([1.5, 2.5]))
    late = LateScalar(values, 1)
    assert values.reads == 0
    assert float(late) == late.item() == late.tolist() == 2.5
    assert (late + 1, 1 - late, late > 2, np.isnan(late)) == (3.5, -1.5, True, False)
    assert f"{late:.3f} {late!r}" == "2.500 array(2.5, dtype=float32)"
    assert np.mean([late, LateScalar(values, 0)]) == 2.0
    assert np.asarray(late).shape == ()
    assert np.asarray(late).dtype == np.float32
    assert np.array(late, dtype=np.float64).dtype == np.float64
