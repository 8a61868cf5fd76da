"""Networks that take each image, or slice, as a whole instead of in windows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2.inference.logit_predictor import uses_sliding_window
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tests.inference.tiny_models import CPU, tiny_predictor

LARGEST_ROUNDING = 0.02  # of the sums in half precision where weights of a window's corners are next to 0


class WholeImageNetwork(nn.Module):
    """Sees a neighbourhood of 5 x 5 pixels and the mean of what it is given; notes the sizes of its inputs."""

    use_sliding_window_inference = False

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, num_outputs, 5, padding=2)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(x.shape))
        return self.convolution(x) + x.mean((2, 3), keepdim=True)


class WindowNetwork(WholeImageNetwork):
    use_sliding_window_inference = True


def predictor_of(network: nn.Module, mirror_axes=None, parameters=None, **settings: object) -> nnUNetPredictor:
    model = tiny_predictor("2d")
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False, **settings)
    managers = (model.plans_manager, model.configuration_manager)
    predictor.manual_initialization(network, *managers, parameters, model.dataset_json, "nnUNetTrainer", mirror_axes)
    return predictor


def num_outputs() -> int:
    return tiny_predictor("2d").label_manager.num_segmentation_heads


def patch_size() -> tuple[int, ...]:
    return tuple(tiny_predictor("2d").configuration_manager.patch_size)


@torch.inference_mode()
def of_slices(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    return torch.stack([network(image[:, index][None])[0] for index in range(image.shape[1])], dim=1)


@pytest.mark.parametrize("excess", [(13, 2), (40, 25), (-1, -3), (-4, 11)], ids=str)
def test_each_slice_is_given_to_the_network_as_it_is(seeded, excess):
    size = [patch + more for patch, more in zip(patch_size(), excess, strict=True)]
    network, image = WholeImageNetwork(num_outputs()), torch.randn(1, 3, *size)
    logits = predictor_of(network).predict_logits_from_preprocessed_data(image)
    assert network.sizes == [(1, 1, *size)] * 3
    assert logits.dtype == torch.float16
    assert torch.equal(logits, of_slices(network, image).half())


def test_an_image_of_the_size_of_a_patch_is_predicted_as_by_the_sliding_window(seeded):
    whole, windows = WholeImageNetwork(num_outputs()), WindowNetwork(num_outputs())
    windows.load_state_dict(whole.state_dict())
    image = torch.randn(1, 2, *patch_size())
    logits, unweighted, weighted = (
        predictor_of(*arguments, use_gaussian=use_gaussian).predict_logits_from_preprocessed_data(image)
        for *arguments, use_gaussian in ((whole, True), (windows, False), (windows, True))
    )
    assert torch.equal(logits, unweighted)
    torch.testing.assert_close(logits, weighted, atol=LARGEST_ROUNDING, rtol=0)
    assert windows.sizes == [(1, 1, *patch_size())] * 4


def test_copies_mirrored_along_the_trained_axes_are_averaged(seeded):
    network, image = WholeImageNetwork(num_outputs()), torch.randn(1, 1, 21, 50)
    with torch.inference_mode():
        plain, mirrored = network(image[0][None]), network(image[0][None].flip(-1)).flip(-1)
    predicted = predictor_of(network, (1,)).predict_logits_from_preprocessed_data(image)
    assert torch.equal(predicted, ((plain + mirrored) / 2)[0, :, None].half())
    unmirrored = predictor_of(network, (1,), use_mirroring=False).predict_logits_from_preprocessed_data(image)
    assert torch.equal(unmirrored, plain[0, :, None].half())


@pytest.mark.parametrize("num_folds", [2, 3])
def test_folds_are_averaged(seeded, num_folds):
    network = WholeImageNetwork(num_outputs())
    folds = [WholeImageNetwork(num_outputs()) for _ in range(num_folds)]
    image = torch.randn(1, 2, 45, 30)
    predictor = predictor_of(network, None, [fold.state_dict() for fold in folds])
    first, *others = (of_slices(fold, image).half() for fold in folds)
    mean = sum(others, first) / num_folds
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), mean)


@pytest.mark.parametrize("network_class", [WholeImageNetwork, WindowNetwork])
def test_a_compiled_network_is_looked_through(seeded, network_class):
    network = network_class(num_outputs())
    size = [2 * side for side in patch_size()]
    predictor = predictor_of(torch.compile(network, backend="eager"), tile_step_size=1)
    slicers = predictor._internal_get_sliding_window_slicers((3, *size))
    assert len(slicers) == (3 if network_class is WholeImageNetwork else 3 * 4)


def test_a_distributed_network_is_looked_through():
    distributed = DistributedDataParallel.__new__(DistributedDataParallel)  # its constructor needs other processes
    nn.Module.__init__(distributed)
    distributed.module = WholeImageNetwork(1)
    assert not uses_sliding_window(distributed)


def test_networks_that_do_not_say_are_predicted_in_windows(seeded):
    """That these predictions are upstream's is tested with the predictor."""
    predictor = tiny_predictor("2d")
    assert not hasattr(predictor.network, "use_sliding_window_inference")
    image = torch.randn(1, 1, *(2 * side for side in patch_size()))
    expected = predictor.predict_sliding_window_return_logits(image)
    predictor.network.use_sliding_window_inference = True
    assert torch.equal(predictor.predict_sliding_window_return_logits(image), expected)
    predictor.network.use_sliding_window_inference = False
    assert not torch.equal(predictor.predict_sliding_window_return_logits(image), expected)
