"""What every 2-D segmentation network of the package must do; a test module names its network in a subclass."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunetv2.model.build import build_network


def architecture_in_plans(network_class: type[nn.Module], arch_kwargs: dict[str, Any]) -> dict[str, Any]:
    """The architecture section as it comes back from a plans file."""
    name = f"{network_class.__module__}.{network_class.__qualname__}"
    section = {"network_class_name": name, "arch_kwargs": arch_kwargs, "_kw_requires_import": []}
    return json.loads(json.dumps(section))


class ModelContract:
    """Subclasses set the class and plain keyword arguments of a small network without a frozen part."""

    network_class: type[nn.Module]
    arch_kwargs: dict[str, Any]

    def build(self, channels: int = 2, classes: int = 3, **changes: Any) -> nn.Module:
        torch.manual_seed(0)
        section = architecture_in_plans(self.network_class, self.arch_kwargs | changes)
        return build_network(
            section["network_class_name"], section["arch_kwargs"], section["_kw_requires_import"], channels, classes
        )

    def loss(self, network: nn.Module, image: Tensor) -> Tensor:
        """Something differentiable that depends on the whole output."""
        output = network(image)
        return (output * torch.randn_like(output)).sum()

    def test_plans_rebuild_the_network_for_training_and_prediction(self):
        section = architecture_in_plans(self.network_class, self.arch_kwargs)
        for deep_supervision in (True, False, None):
            network = build_network(*section.values(), 2, 3, deep_supervision=deep_supervision)
            assert type(network) is self.network_class

    @pytest.mark.parametrize("size", [(64, 64), (32, 96), (50, 71), (7, 5)])
    def test_logits_have_the_size_of_the_image(self, size):
        network = self.build().eval()
        with torch.no_grad():
            logits = network(torch.randn(1, 2, *size))
        assert logits.shape == (1, 3, *size)
        assert logits.isfinite().all()

    def test_what_is_missing_to_a_multiple_is_appended_below_and_on_the_right(self):
        """Logits lie where their pixels do: those of the image are the first rows and columns of the padded one's."""
        network = self.build().eval()
        image = torch.randn(1, 2, 50, 71)
        below, right = (-side % network.image_multiple for side in image.shape[-2:])
        assert below != right
        with torch.no_grad():
            padded = network(torch.nn.functional.pad(image, (0, right, 0, below)))
            torch.testing.assert_close(network(image), padded[..., :50, :71], rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_any_number_of_channels_is_accepted(self, channels):
        network = self.build(channels=channels).eval()
        with torch.no_grad():
            assert network(torch.randn(2, channels, 32, 32)).shape == (2, 3, 32, 32)

    def test_an_image_does_not_depend_on_its_batch_in_eval_mode(self):
        network = self.build().eval()
        images = torch.randn(3, 2, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(network(images)[1:2], network(images[1:2]), atol=1e-4, rtol=1e-4)

    def test_the_gradient_reaches_every_trainable_parameter(self):
        network = self.build().train()
        self.loss(network, torch.randn(2, 2, 64, 64)).backward()
        without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []

    def test_saved_weights_give_the_same_logits(self, tmp_path):
        network, other = self.build().eval(), self.build().eval()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.1)
        image = torch.randn(1, 2, 64, 64)
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        with torch.no_grad():
            expected = network(image)
            assert not torch.allclose(other(image), expected)
            other.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
            torch.testing.assert_close(other(image), expected, rtol=0, atol=0)
