"""Compares the mask classification loss with that of transformers: time of one forward and backward pass.

    python benchmarks/mask_loss.py [--device cuda] [--batch 2] [--targets 8] [--size 512] [--layers 10] [--repeats 5]

Both losses get the same predictions (a quarter of the image size) and targets, in turn. Prints one JSON object: the
median milliseconds of each and theirs divided by ours. On the CPU these are CPU milliseconds of one thread; on CUDA,
wall time between synchronisations, with peak memory and the number of host waits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

import torch
from step_times import cuda_figures, medians
from torch import Tensor

from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss

NUM_QUERIES = 100
NUM_CLASSES = 15
POINTS = 12544


def make_predictions(arguments: argparse.Namespace) -> list[dict[str, Tensor]]:
    side, device = arguments.size // 4, arguments.device
    return [
        {
            "pred_logits": torch.randn(
                arguments.batch, NUM_QUERIES, NUM_CLASSES + 1, device=device, requires_grad=True
            ),
            "pred_masks": torch.randn(arguments.batch, NUM_QUERIES, side, side, device=device, requires_grad=True),
        }
        for _ in range(arguments.layers)
    ]


def make_targets(arguments: argparse.Namespace) -> list[dict[str, Tensor]]:
    shape = (arguments.targets, arguments.size, arguments.size)
    return [
        {
            "labels": torch.randperm(NUM_CLASSES, device=arguments.device)[: arguments.targets],
            "masks": torch.rand(shape, device=arguments.device) > 0.5,
        }
        for _ in range(arguments.batch)
    ]


def our_step(predictions: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> Callable[[], Tensor]:
    criterion = MaskClassificationLoss(NUM_CLASSES, POINTS)
    outputs = {**predictions[-1], "aux_outputs": predictions[:-1]}
    return lambda: criterion.total(criterion(outputs, targets))


def their_step(predictions: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> Callable[[], Tensor]:
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    config = Mask2FormerConfig(num_labels=NUM_CLASSES, train_num_points=POINTS)
    weights = {"loss_cross_entropy": config.class_weight, "loss_mask": config.mask_weight}
    weights["loss_dice"] = config.dice_weight
    criterion = Mask2FormerLoss(config, weight_dict=weights).to(predictions[0]["pred_masks"].device)
    masks, labels = [target["masks"].float() for target in targets], [target["labels"] for target in targets]
    *auxiliary, last = [
        {"masks_queries_logits": prediction["pred_masks"], "class_queries_logits": prediction["pred_logits"]}
        for prediction in predictions
    ]

    def step() -> Tensor:
        losses = criterion(*last.values(), masks, labels, auxiliary)
        return sum(weight * loss for name, loss in losses.items() for key, weight in weights.items() if key in name)

    return step


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--targets", type=int, default=8, help=f"masks per image, at most {NUM_CLASSES}")
    parser.add_argument("--size", type=int, default=512, help="side of the images in pixels")
    parser.add_argument("--layers", type=int, default=10, help="predictions")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    predictions, targets = make_predictions(arguments), make_targets(arguments)
    losses = {"ours": our_step(predictions, targets), "transformers": their_step(predictions, targets)}
    steps = {name: lambda loss=loss: loss().backward() for name, loss in losses.items()}
    times = medians(steps, arguments.device, arguments.repeats)
    result = {f"{name}_ms": taken["ms"] for name, taken in times.items()}
    result["transformers_by_ours"] = round(result["transformers_ms"] / result["ours_ms"], 2)
    if arguments.device.type == "cuda":
        result |= {name: cuda_figures(step, arguments.device) for name, step in steps.items()}
    settings = {key: getattr(arguments, key) for key in ("batch", "targets", "size", "layers")}
    print(json.dumps(settings | {"device": str(arguments.device)} | result))


if __name__ == "__main__":
    main()
