"""Counts what a training step asks of a GPU, without one: launches, bytes read and written, peak memory.

    python -m benchmarks.step_budget HEAD ... [--tuning lora] [--size 512] [--depth 32] [--batch 2]
        [--backbone large] [--top 8]

Tensors have shapes, types and a device but no data, so that full sizes take seconds. Attention is counted as the
kernels that a GPU uses. The step is not the first of its size. Not counted: the optimiser, clipping, and the matching
on the host.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dinov3.eval.segmentation.loss import hungarian_matcher
from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss
from dinov3.eval.segmentation.models.utils import size_constants
from dinov3.layers.joint_casts import JointCasts
from dinov3.utils.half_weights import cast_frozen_weights
from nnunetv2.model.cost.cost_recorder import CostRecorder
from nnunetv2.model.dense_network import DenseViTNetwork
from nnunetv2.model.head_config import head_config_class
from nnunetv2.model.query_network import QueryNetwork
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities import extensions
from tests.pretend_cuda import guard

CUDA = torch.device("cuda:0")
CLASSES, TARGETS = 5, 4  # outputs; labels that occur in an image
GIB = 2**30
_aten = torch.ops.aten
_NO_KERNEL = {
    torch.ops.prim.device.default,
    _aten.detach.default,
    _aten.empty.memory_format,
    _aten.empty_like.default,
    _aten.new_empty.default,
    _aten._unsafe_view.default,
    _aten.promote_types.default,
}


class LaunchCounter(TorchDispatchMode):
    """Counts operations that launch a kernel, and the bytes of their arguments and results.

    Attributes:
        launches: by the name of the operation.
        bytes_moved: of all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.bytes_moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = bool(returns) and all(value.alias_info and not value.alias_info.is_write for value in returns)
        if not is_view and func not in _NO_KERNEL:
            self.launches[func.__name__.split(".")[0]] += 1
            leaves = pytree.tree_leaves((args, kwargs, result))
            self.bytes_moved += sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))
        return result


class _AttentionOfGPUs(TorchFunctionMode):
    """Calls the attention kernel that CUDA would choose, which fake tensors replace by its mathematical form."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Mapping | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attend(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0) -> Tensor:
    if torch.is_autocast_enabled("cuda"):
        q, k, v = (each.to(torch.get_autocast_dtype("cuda")) for each in (q, k, v))
    if attn_mask is None and q.dtype != torch.float32:
        return _aten._scaled_dot_product_flash_attention(q, k, v, dropout_p)[0]
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill_(~attn_mask, -torch.inf)
        attn_mask = attn_mask.to(q.dtype).expand(*q.shape[:3], k.shape[2])
    return _aten._scaled_dot_product_efficient_attention(q, k, v, attn_mask, True, dropout_p)[0]


def _match_anything(self: Any, logits: Tensor, masks: Tensor, targets: Any, area: Any, *rest: Any) -> Any:
    """Replaces the matching: its costs are computed, and the host's answer does not depend on them."""
    valid, generators = (*rest, None, None)[:2]
    points = hungarian_matcher.one_set_per_image(area, logits.shape[1], self.num_points, generators)
    with torch.no_grad():
        self._costs(logits, masks, targets, points, valid)
    number = sum(len(target["labels"]) for target in targets)
    queries = torch.zeros(len(masks), number, dtype=torch.long, device=CUDA)
    return hungarian_matcher.Matching(torch.zeros(number, dtype=torch.long, device=CUDA), queries, 0)


@contextlib.contextmanager
def _device_without_data() -> Iterator[None]:
    guard.install()
    torch.autograd.set_multithreading_enabled(False)  # its thread for the device would not see the modes
    answers = {
        "is_bf16_supported": lambda *_: True,
        "get_rng_state": lambda *_: torch.empty(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
    }
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False))
        stack.enter_context(mock.patch.object(hungarian_matcher.HungarianMatcher, "__call__", _match_anything))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        # Constants without data are remembered as those of a training are, but not longer than this mode.
        stack.enter_context(mock.patch.object(size_constants, "is_in_torch_dispatch_mode", lambda: False))
        size_constants.forget_constants()
        stack.callback(size_constants.forget_constants)
        yield


def _without_data(network: nn.Module) -> None:
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            empty = torch.empty(weight.shape, dtype=weight.dtype, device=CUDA)
            setattr(module, name, nn.Parameter(empty, weight.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=CUDA))


def _loss(network: nn.Module, images: Tensor) -> Tensor:
    batch, _, *size = images.shape  # of volumes with their slices
    if isinstance(network, QueryNetwork):
        outputs, loss = network(images, return_queries=True), MaskClassificationLoss(CLASSES)
        labels = torch.zeros(TARGETS, dtype=torch.long, device=CUDA)
        masks = torch.zeros(TARGETS, *size, dtype=torch.bool, device=CUDA)
        return loss.total(loss(outputs, [{"labels": labels, "masks": masks}] * batch, None))
    dice = {"batch_dice": True, "smooth": 1e-5, "ddp": False, "do_bg": False}
    loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    return loss(network(images), torch.zeros(batch, 1, *size, dtype=torch.int16, device=CUDA))


def _outputs(network: nn.Module, images: Tensor) -> list[Tensor]:
    if not isinstance(network, QueryNetwork):
        return [network(images)]
    outputs = network(images, return_queries=True)
    return [each[name] for each in (outputs, *outputs["aux_outputs"]) for name in ("pred_logits", "pred_masks")]


def step_budget(
    head: Mapping[str, Any],
    *,
    backbone_size: str = "large",
    tuning: str = "lora",
    size: int = 512,
    depth: int | None = None,
    batch: int = 2,
    halves: bool = True,
    has_loss: bool = True,
) -> dict[str, Any]:
    """Counts a training step in bf16; changes the process for good, see `guard.install`.

    Images have three channels, volumes one, and their slices see each other as by default.

    Args:
        head: `name` and `settings`.
        backbone_size: of DINOv3.
        tuning: of the backbone.
        size: height and width.
        depth: slices of volumes; None: images.
        batch: images or volumes.
        halves: frozen weights are kept in half precision and the others cast together, as trainers do.
        has_loss: false: gradients of 0 for the outputs stand in for the loss, as in `nnUNetv2_model_info`.

    Returns:
        `launches`, `casts` among them, `moved_GB`, `TFLOP`, `peak_GiB` with weights and without the optimiser's state,
        and `operations`: launches by name, most frequent first.
    """
    with torch.device("meta"):
        kind = QueryNetwork if head_config_class(head["name"]).kind == "queries" else DenseViTNetwork
        settings = {"head": head, "backbone_size": backbone_size, "tuning": tuning}
        if depth is not None:
            settings |= {"slice_input": "neighbours", "fusion": "conv"}
        network = kind(3 if depth is None else 1, CLASSES, **settings).to("meta")
    counter, recorder = LaunchCounter(), CostRecorder({network: "all"})
    with _device_without_data():
        _without_data(network)
        casts = contextlib.nullcontext()
        if halves:
            cast_frozen_weights(network, torch.bfloat16)
            casts = JointCasts(network, torch.bfloat16).step()
        shape = (batch, 3, size, size) if depth is None else (batch, 1, depth, size, size)
        images = torch.empty(shape, device=CUDA)
        weights = [*network.parameters(), *network.buffers()]
        with _AttentionOfGPUs(), torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
            network(images)  # makes what depends on the size alone
        with _AttentionOfGPUs(), counter, recorder.watching(weights), casts:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                outputs = [_loss(network, images)] if has_loss else _outputs(network, images)
            gradients = None if has_loss else [torch.zeros_like(output) for output in outputs]
            torch.autograd.backward(outputs, gradients)
    peak = recorder.peak_bytes + sum(weight.nbytes for weight in weights)
    return {
        "launches": counter.launches.total(),
        "casts": counter.launches["_to_copy"],
        "moved_GB": round(counter.bytes_moved / 1e9, 3),
        "TFLOP": round(sum(recorder.flops.values()) / 1e12, 3),
        "peak_GiB": round(peak / GIB, 3),
        "operations": dict(counter.launches.most_common()),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="+", metavar="HEAD", choices=extensions.names("head"))
    parser.add_argument("--tuning", default="lora", choices=("frozen", "lora", "full"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--depth", type=int, help="slices of volumes (default: images)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--backbone", default="large", metavar="SIZE")
    parser.add_argument("--float-weights", action="store_true", help="keep frozen weights in float32")
    parser.add_argument("--top", type=int, default=8, help="operations to list (default: %(default)s)")
    arguments = parser.parse_args(argv)
    for head in arguments.heads:
        found = step_budget(
            {"name": head},
            backbone_size=arguments.backbone,
            tuning=arguments.tuning,
            size=arguments.size,
            depth=arguments.depth,
            batch=arguments.batch,
            halves=not arguments.float_weights,
        )
        found["operations"] = dict(list(found["operations"].items())[: arguments.top])
        print(json.dumps({"head": head, "tuning": arguments.tuning} | found))


if __name__ == "__main__":
    main()
