"""Which blocks are masked in prediction is known without reading it in every forward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.model.mask_transformer_parts import MaskSwitches
from nnunetv2.model.model_eomt import EoMTSegmentationModel

HALF = 0.5


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("probability", torch.ones(2))
        self.switches = MaskSwitches()

    def forward(self, x: Tensor) -> Tensor:
        for factor, probability in zip((1, 10), self.switches.probabilities(self.probability, False), strict=True):
            x = x if probability is None else x + factor * probability
        return x


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The buffers that were read."""
    seen, read = [], MaskSwitches.read
    monkeypatch.setattr(MaskSwitches, "read", lambda self, buffer: seen.append(buffer) or read(self, buffer))
    return seen


def test_what_was_set_is_known(reads: list[Tensor]) -> None:
    head, x = Head(), torch.zeros(())
    for probabilities, expected in (((HALF, 0.4), 1), ((0.0, 1.0), 10), ((0.9, 0.8), 11), ((0.0, 0.0), 0)):
        head.switches.set(head.probability, probabilities)
        assert head.probability.tolist() == pytest.approx(probabilities)
        assert head(x) == expected
    assert reads == []


def test_what_else_was_written_is_read_once(reads: list[Tensor]) -> None:
    head, x = Head(), torch.zeros(())
    assert [head(x).item() for _ in range(3)] == [11.0] * 3
    assert len(reads) == 1
    head.probability[0] = 0.1
    assert [head(x).item() for _ in range(3)] == [10.0] * 3
    head.probability = torch.tensor([1.0, 0.0])
    assert [head(x).item() for _ in range(3)] == [1.0] * 3
    assert len(reads) == 3
    twin = copy.deepcopy(head)
    twin.probability.zero_()
    assert (twin(x), head(x)) == (0, 1)


def test_training_keeps_the_probabilities_on_the_device(reads: list[Tensor]) -> None:
    on_device = torch.empty(2, device="meta")
    parts = MaskSwitches().probabilities(on_device, training=True)
    assert [part.device.type for part in parts] == ["meta", "meta"]
    assert reads == []


def test_one_graph_serves_all_probabilities_with_the_same_blocks_masked() -> None:
    head, x, graphs = Head(), torch.zeros(()), []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(head, backend=backend, fullgraph=True)
    for probabilities, expected in (((0.9, 0.8), 11), ((0.8, 0.7), 11), ((0.4, 0.7), 10), ((0.1, 0.6), 10)):
        head.switches.set(head.probability, probabilities)
        assert compiled(x) == expected
    assert len(graphs) == 2


def test_a_loaded_network_has_the_masks_of_its_checkpoint(reads: list[Tensor]) -> None:
    tiny = {"backbone_size": "tiny", "num_queries": 3, "num_joint_blocks": 2}
    early, late = (EoMTSegmentationModel(1, 2, **tiny).eval() for _ in range(2))
    early.set_training_progress(0.0)
    late.set_training_progress(1.0)
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = early(image, return_queries=True)["pred_masks"]
        late.load_state_dict(early.state_dict())
        assert len(reads) == 1  # while loading
        assert torch.equal(late(image, return_queries=True)["pred_masks"], expected)
    assert len(reads) == 1
