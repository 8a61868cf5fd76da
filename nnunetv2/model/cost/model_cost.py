"""Cost of a network: parameters, floating-point operations and memory, counted without weights or a GPU.

The network is built and run with fake tensors: shapes without values (PyTorch's device `meta`).

A multiply-add counts as two operations (FLOPs). Matrix products, convolutions, attention and the bilinear sampling of
deformable attention count; norms, activations, resizing and other operations on single elements do not.
Memory covers tensors only: weights, gradients, optimiser state and activations of the forward and backward pass. It
excludes the loss, kernel workspaces, allocator fragmentation and the CUDA context.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nnunetv2.errors import UsageError
from nnunetv2.model.cost.cost_recorder import CostRecorder
from nnunetv2.model.cost.dataless_network import (
    AUTOCAST_TYPES,
    autocast_as_on_cuda,
    build_without_data,
    running_without_data,
)
from nnunetv2.model.cost.network_parts import REST, network_parts, parameters_of_parts, part_of_each_module
from nnunetv2.model.network_hook import switch_deep_supervision
from nnunetv2.model.query_network import QueryNetwork
from nnunetv2.model.vit_network import ViTNetwork


@dataclass(frozen=True)
class PartCost:
    """One part of a network, see `nnunetv2.model.cost.network_parts`."""

    name: str
    parameters: int
    trainable_parameters: int
    forward_flops: int
    """to predict one patch"""
    training_flops: int
    """to train on one patch: forward, backward where gradients are needed, and recomputation"""
    activation_bytes: int
    """kept from the forward to the backward pass, for the whole batch"""


@dataclass(frozen=True)
class MemoryCost:
    """Memory in bytes."""

    weights: int
    """parameters and buffers"""
    gradients: int
    optimizer: int
    """state that the optimiser keeps between steps"""
    activations: int
    """kept from the forward to the backward pass"""
    training_peak: int
    """weights, optimiser state, and the peak during the forward and backward pass of a batch"""
    inference_peak: int
    """weights, and the peak during the prediction of one patch"""


@dataclass(frozen=True)
class ModelCost:
    """Cost of a network for one patch size, batch size and precision."""

    network: str
    """class name, with the head's name if the class accepts any head"""
    input_channels: int
    patch_size: tuple[int, ...]
    batch_size: int
    precision: str
    parts: tuple[PartCost, ...]
    memory: MemoryCost

    def total(self, quantity: str) -> int:
        """Sum of a quantity over the parts, for example `parameters`."""
        return sum(getattr(part, quantity) for part in self.parts)


def model_cost(
    build: Callable[[], nn.Module],
    input_channels: int,
    patch_size: Sequence[int],
    *,
    batch_size: int = 2,
    precision: str = "fp32",
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    deep_supervision: bool = False,
) -> ModelCost:
    """Counts the cost of training a network and of predicting with it.

    Args:
        build: returns the network.
        input_channels: channels of its images.
        patch_size: spatial size of a patch, two or three sizes.
        batch_size: patches of a training step on one GPU.
        precision: `fp32`, or `bf16` or `fp16` for autocast with weights in fp32.
        make_optimizer: returns the optimiser for the network; None: AdamW.
        deep_supervision: train with outputs at several resolutions, if the network supports it.

    Raises:
        UsageError: the precision is unknown, or the network cannot process patches of this size.
    """
    if precision not in AUTOCAST_TYPES:
        raise UsageError(f"precision is {precision!r}; accepted are {', '.join(AUTOCAST_TYPES)}")
    network = build_without_data(build)
    part_of = part_of_each_module(network, network_parts(network))
    size = (input_channels, *patch_size)
    try:
        switch_deep_supervision(network, False)
        prediction = watch_prediction(network, (1, *size), part_of, precision)
        switch_deep_supervision(network, deep_supervision)
        training, kept = watch_training_step(network, (batch_size, *size), part_of, precision)
    except RuntimeError as err:
        text = str(err).strip().splitlines()[0]
        raise UsageError(
            f"The network cannot take patches of {'x'.join(map(str, patch_size))} ({text}); "
            f"choose sizes that it can halve as often as it does, such as those of the plans"
        ) from err
    network.zero_grad(set_to_none=True)
    weights = _bytes(_weights(network))
    states = optimizer_state_bytes((make_optimizer or _adamw)(network))
    memory = MemoryCost(
        weights=weights,
        gradients=_bytes(parameter for parameter in network.parameters() if parameter.requires_grad),
        optimizer=states,
        activations=kept.total(),
        training_peak=weights + states + training.peak_bytes,
        inference_peak=weights + prediction.peak_bytes,
    )
    per_patch = Counter({part: flops // batch_size for part, flops in training.flops.items()})
    parts = _part_costs(network, part_of, prediction.flops, per_patch, kept)
    return ModelCost(_name(network), input_channels, tuple(patch_size), batch_size, precision, parts, memory)


def watch_prediction(
    network: nn.Module, image_shape: Sequence[int], part_of: Mapping[nn.Module, str], precision: str
) -> CostRecorder:
    """Predicts an all-zero image with a real or fake network and returns the recorded cost."""
    network.eval()
    recorder = CostRecorder(part_of)
    with running_without_data(network), recorder.watching(_weights(network)), torch.no_grad():
        image = torch.zeros(*image_shape)
        with autocast_as_on_cuda(precision):
            network(image)
    return recorder


def watch_training_step(
    network: nn.Module, batch_shape: Sequence[int], part_of: Mapping[nn.Module, str], precision: str
) -> tuple[CostRecorder, Counter[str]]:
    """Runs an all-zero batch forward and backward through a real or fake network.

    Returns:
        The recorded cost, and the bytes that each part saved for the backward pass.
    """
    network.train()
    network.zero_grad(set_to_none=True)
    recorder = CostRecorder(part_of)
    with running_without_data(network), recorder.watching(_weights(network)):
        images = torch.zeros(*batch_shape)
        with autocast_as_on_cuda(precision):
            if isinstance(network, QueryNetwork):
                outputs = network(images, return_queries=True)
            else:
                outputs = network(images)
        kept = recorder.kept_bytes()
        outputs = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
        # Stands in for the loss, which returns one gradient per output, of the same size.
        torch.autograd.backward(outputs, [torch.zeros_like(output) for output in outputs])
    return recorder, kept


def optimizer_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Measures the memory of the optimiser state, without scalars such as the step count.

    Takes one step with the largest parameter of each group and scales its state to the whole group, so parameters need
    neither values nor gradients.
    """
    total = 0
    for group in optimizer.param_groups:
        trained = [parameter for parameter in group["params"] if parameter.requires_grad]
        largest = max(trained, key=Tensor.numel, default=None)
        if largest is not None:
            largest.grad = torch.empty_like(largest)
            optimizer.step()
            largest.grad = None
            remembered = pytree.tree_leaves(optimizer.state[largest])
            size = _bytes(leaf for leaf in remembered if isinstance(leaf, Tensor) and leaf.ndim > 0)
            total += size * sum(map(Tensor.numel, trained)) // largest.numel()
    return total


def _name(network: nn.Module) -> str:
    name = type(network).__name__
    has_any_head = isinstance(network, ViTNetwork) and network.head.Config.network_class is None
    return f"{name} ({network.head.name})" if has_any_head else name


def _part_costs(
    network: nn.Module, part_of: Mapping[nn.Module, str], forward: Counter, training: Counter, kept: Counter
) -> tuple[PartCost, ...]:
    total: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    for part, parameter in parameters_of_parts(part_of):
        total[part] += parameter.numel()
        trainable[part] += parameter.numel() * parameter.requires_grad
    rows = (
        PartCost(part, total[part], trainable[part], forward[part], training[part], kept[part])
        for part in (*network_parts(network), REST)
    )
    return tuple(row for row in rows if any(vars(row)[name] for name in vars(row) if name != "name"))


def _weights(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _adamw(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameter for parameter in network.parameters() if parameter.requires_grad)
