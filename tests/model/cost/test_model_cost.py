"""Costs of networks: equal to what is computed by hand, counted by PyTorch, or measured where there are values."""

from __future__ import annotations

import weakref

import pytest
import timm
import torch
import torch.nn.functional as F
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2.errors import UsageError
from nnunetv2.model.cost.dataless_network import autocast_as_on_cuda, build_without_data
from nnunetv2.model.cost.model_cost import ModelCost, PartCost, model_cost, watch_training_step
from nnunetv2.model.cost.network_parts import REST, network_parts, parameters_of_parts, part_of_each_module
from nnunetv2.model.model import ViTSegmentationModel
from nnunetv2.model.model_eomt import EoMTSegmentationModel
from nnunetv2.model.model_m2f import M2FSegmentationModel
from nnunetv2.model.model_segformer import SegFormerSegmentationModel
from nnunetv2.model.query_network import QueryNetwork

SIZE = 64
VIT_NETWORKS = {
    "upernet": (ViTSegmentationModel, {"hidden_size": 16}),
    "segformer": (SegFormerSegmentationModel, {"decoder_hidden_size": 16}),
    "eomt": (EoMTSegmentationModel, {"num_queries": 5}),
    "m2f": (
        M2FSegmentationModel,
        {"hidden_dim": 32, "num_heads": 4, "dim_feedforward": 64, "num_queries": 5, "num_decoder_layers": 3},
    ),
}


def part(cost: ModelCost, name: str) -> PartCost:
    return next(part for part in cost.parts if part.name == name)


def unet() -> PlainConvUNet:
    return PlainConvUNet(
        input_channels=1,
        n_stages=3,
        features_per_stage=[4, 8, 16],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[1, 2, 2],
        n_conv_per_stage=1,
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


def vit_network(name: str, **changes: object) -> nn.Module:
    network_class, settings = VIT_NETWORKS[name]
    return network_class(1, 3, backbone_size="tiny", **{**settings, **changes})


class Toy(nn.Module):
    """A convolution, attention of one head, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, kernel_size=2, stride=2)
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)[:, None]  # (B, 1, 16, 8)
        return self.linear(F.scaled_dot_product_attention(tokens, tokens, tokens))


def test_flops_are_those_computed_by_hand():
    cost = model_cost(Toy, 3, (8, 8), batch_size=2)
    conv, linear, product = 2 * 16 * 8 * 12, 2 * 16 * 8 * 5, 2 * 16 * 16 * 8
    assert (part(cost, "conv").forward_flops, part(cost, "linear").forward_flops) == (conv, linear)
    assert part(cost, REST).forward_flops == 2 * product  # scores, and values by scores
    # Backward, as much again for each gradient: of weights and of inputs, without that of the image.
    assert part(cost, "conv").training_flops == 2 * conv
    assert part(cost, "linear").training_flops == 3 * linear
    assert part(cost, REST).training_flops == 3 * 2 * product


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.second = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_groups_of_a_convolution_share_no_work():
    cost = model_cost(Grouped, 4, (8, 8))
    first, second = 2 * 64 * 4 * 9, 2 * 64 * 4 * 3 * 4
    assert (part(cost, "first").forward_flops, part(cost, "second").forward_flops) == (first, second)
    assert (part(cost, "first").training_flops, part(cost, "second").training_flops) == (2 * first, 3 * second)


class Sampler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1, 5, 7, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.grid_sample(x, self.places.expand(len(x), -1, -1, -1), align_corners=False)


def test_sampling_is_four_multiply_adds_per_value():
    cost = model_cost(Sampler, 3, (8, 8), batch_size=2)
    assert cost.total("forward_flops") == 8 * 3 * 5 * 7
    assert cost.total("training_flops") == 3 * 8 * 3 * 5 * 7


def test_vit_small_has_the_operations_that_timm_publishes():
    cost = model_cost(lambda: timm.create_model("vit_small_patch16_224"), 3, (224, 224), batch_size=1)
    assert cost.total("forward_flops") / 2e9 == pytest.approx(4.6, abs=0.01)
    assert cost.total("parameters") / 1e6 == pytest.approx(22.05, abs=0.01)


def test_a_unet_has_the_flops_that_pytorch_counts():
    network, image = unet(), torch.zeros(2, 1, SIZE, SIZE)
    with FlopCounterMode(display=False) as counter:
        outputs = network(image)
        torch.autograd.backward(outputs, [torch.zeros_like(output) for output in outputs])
    cost = model_cost(unet, 1, (SIZE, SIZE), batch_size=2, deep_supervision=True)
    assert 2 * cost.total("training_flops") == counter.get_total_flops()
    network.decoder.deep_supervision = False
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    assert 2 * cost.total("forward_flops") == counter.get_total_flops()
    assert [p.name for p in cost.parts] == ["encoder", "decoder"]


def test_a_unet_has_the_flops_of_its_convolutions():
    cost = model_cost(unet, 1, (SIZE, SIZE))
    pixels = [SIZE**2, SIZE**2 // 4, SIZE**2 // 16]
    encoder = 9 * (pixels[0] * 4 + pixels[1] * 4 * 8 + pixels[2] * 8 * 16)
    upsampling = pixels[1] * 16 * 8 + pixels[0] * 8 * 4  # kernel 2, stride 2: one tap per new pixel
    decoder = upsampling + 9 * (pixels[1] * 16 * 8 + pixels[0] * 8 * 4) + pixels[0] * 4 * 3
    assert (part(cost, "encoder").forward_flops, part(cost, "decoder").forward_flops) == (2 * encoder, 2 * decoder)


class PassThrough(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Kept:
    """What autograd is given in place of a tensor; it lives as long as the graph needs it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def measured_kept_bytes(network: nn.Module, precision: str = "fp32") -> int:
    """Bytes that autograd holds after a forward pass with values, weights aside, told apart by their addresses."""
    network.train()
    weights = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    held: weakref.WeakSet[Kept] = weakref.WeakSet()

    def keep(tensor: Tensor) -> Kept:
        held.add(kept := Kept(tensor))
        return kept

    image = torch.randn(2, 1, SIZE, SIZE)
    # In a dispatch mode, constants are not shared by the layers, which is 120 bytes for M2F.
    with PassThrough(), saved_tensors_hooks(keep, lambda kept: kept.tensor), autocast_as_on_cuda(precision):
        outputs = network(image, return_queries=True) if isinstance(network, QueryNetwork) else network(image)
    storages = {kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage().nbytes() for kept in held}
    del outputs
    return sum(size for address, size in storages.items() if address not in weights)


def estimated_kept_bytes(build: object, precision: str = "fp32") -> int:
    return model_cost(build, 1, (SIZE, SIZE), precision=precision, deep_supervision=True).memory.activations


def test_a_unet_keeps_the_measured_bytes():
    assert estimated_kept_bytes(unet) == measured_kept_bytes(unet())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tuning"), [("m2f", "frozen"), ("eomt", "lora"), ("upernet", "full"), ("segformer", "lora")]
)
def test_networks_keep_the_measured_bytes(name, tuning):
    def build() -> nn.Module:
        return vit_network(name, tuning=tuning)

    assert estimated_kept_bytes(build) == measured_kept_bytes(build())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eomt", "upernet"])
def test_networks_keep_the_measured_bytes_in_half_precision(name):
    estimate = estimated_kept_bytes(lambda: vit_network(name, tuning="lora"), "bf16")
    # Without values PyTorch keeps the means of a batch norm in bf16, with them in float32.
    assert estimate == pytest.approx(measured_kept_bytes(vit_network(name, tuning="lora"), "bf16"), rel=1e-3)


def test_half_precision_halves_the_activations_of_a_unet():
    full, half = (model_cost(unet, 1, (128, 128), precision=name).memory for name in ("fp32", "fp16"))
    assert 0.5 < half.activations / full.activations < 0.55
    assert (half.weights, half.gradients, half.optimizer) == (full.weights, full.gradients, full.optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("name", VIT_NETWORKS)
def test_without_values_the_same_is_seen_as_with_them(name):
    seen = []
    for network in (vit_network(name), build_without_data(lambda: vit_network(name))):
        part_of = part_of_each_module(network, network_parts(network))
        recorder, kept = watch_training_step(network, (2, 1, SIZE, SIZE), part_of, "fp32")
        seen.append((recorder.flops, kept, recorder.peak_bytes))
    assert seen[0] == seen[1]


def test_peaks_are_those_computed_by_hand():
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 10, 1, bias=False), nn.ReLU(), nn.Conv2d(10, 2, 1, bias=False))

    cost = model_cost(build, 1, (8, 8), batch_size=3)
    image, hidden, output, weights = 4 * 64, 4 * 640, 4 * 128, 4 * 30
    assert cost.memory.weights == cost.memory.gradients == weights
    assert cost.memory.optimizer == 2 * weights
    assert cost.memory.activations == 3 * (image + hidden)  # ReLU and the second convolution share one
    # Predicting: the input and output of ReLU live together.
    assert cost.memory.inference_peak == weights + image + 2 * hidden
    # Training, in the backward pass of ReLU: its output, gradients of both sides; the first weight has its gradient.
    assert cost.memory.training_peak == 3 * weights + 3 * (image + 3 * hidden + 2 * output) + 4 * 20


@pytest.mark.slow
def test_a_frozen_backbone_costs_its_forward_pass_alone():
    frozen, lora, full = (
        part(model_cost(lambda t=tuning: vit_network("segformer", tuning=t), 1, (SIZE, SIZE)), "backbone")
        for tuning in ("frozen", "lora", "full")
    )
    assert (frozen.trainable_parameters, frozen.activation_bytes) == (0, 0)
    assert frozen.training_flops == frozen.forward_flops
    assert 1.9 < lora.training_flops / lora.forward_flops < 2.5 < full.training_flops / full.forward_flops < 3
    assert 0 < lora.trainable_parameters < lora.parameters
    assert full.trainable_parameters == full.parameters == frozen.parameters


@pytest.mark.slow
def test_checkpointing_of_the_adapter_trades_memory_for_operations():
    plain, recomputed = (
        part(model_cost(lambda g=given: vit_network("m2f", gradient_checkpointing=g), 1, (SIZE, SIZE)), "adapter")
        for given in (False, True)
    )
    assert recomputed.activation_bytes < 0.7 * plain.activation_bytes
    assert recomputed.training_flops > 1.05 * plain.training_flops
    assert recomputed.forward_flops == plain.forward_flops


@pytest.mark.slow
def test_a_count_leaves_nothing_behind():
    network = vit_network("m2f").eval()
    size = (96, 160)  # of no other test, so that the constants of that size are not made yet
    model_cost(lambda: vit_network("m2f"), 1, size)
    with torch.no_grad():
        assert network(torch.randn(1, 1, *size)).isfinite().all()


@pytest.mark.parametrize(
    ("make_optimizer", "numbers"),
    [
        (None, 2),
        (lambda network: torch.optim.SGD(network.parameters(), 0.1), 0),
        (lambda network: torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True), 1),
        (lambda network: torch.optim.Adam([{"params": [p]} for p in network.parameters()], amsgrad=True), 3),
    ],
)
def test_an_optimiser_remembers_numbers_per_parameter(make_optimizer, numbers):
    cost = model_cost(Toy, 3, (8, 8), make_optimizer=make_optimizer)
    assert cost.memory.optimizer == numbers * 4 * cost.total("parameters")


@pytest.mark.parametrize("name", VIT_NETWORKS)
def test_every_parameter_belongs_to_one_part(name):
    network = build_without_data(lambda: vit_network(name, tuning="lora"))
    counted = list(parameters_of_parts(part_of_each_module(network, network_parts(network))))
    assert sum(p.numel() for _, p in counted) == sum(p.numel() for p in network.parameters())
    assert REST not in {label for label, _ in counted}
    backbone = sum(p.numel() for label, p in counted if label == "backbone")
    assert backbone == sum(p.numel() for p in network.backbone.parameters())


# Millions of parameters of the released head (hidden width 2048, 150 classes, 100 queries) on backbones of these sizes.
@pytest.mark.parametrize(("size", "head"), [("small", 669.926935), ("large", 675.169815), ("7b", 700.335639)])
def test_the_largest_models_are_built_in_seconds(size, head):
    wide = {"hidden_dim": 2048, "num_heads": 16, "dim_feedforward": 4096, "num_queries": 150}
    network = build_without_data(lambda: M2FSegmentationModel(3, 150, backbone_size=size, tuning="frozen", **wide))
    millions = {**dict.fromkeys(network_parts(network), 0.0), "mask transformer": -50 * 2 * 2048 / 1e6}
    for label, parameter in parameters_of_parts(part_of_each_module(network, network_parts(network))):
        millions[label] += parameter.numel() / 1e6
    assert millions["pixel decoder"] + millions["mask transformer"] == pytest.approx(head, abs=1e-6)
    assert millions["mask transformer"] == pytest.approx(466.616471, abs=1e-6)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(UsageError, match="precision is 'int8'; accepted are fp32, bf16, fp16"):
        model_cost(Toy, 3, (8, 8), precision="int8")
    with pytest.raises(
        UsageError, match=r"cannot take patches of 50x50 \(Sizes of tensors must match.*\); choose sizes"
    ):
        model_cost(unet, 1, (50, 50))
