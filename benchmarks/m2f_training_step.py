"""Compares Mask2Former head and loss with those of transformers: one training step and one forward pass.

    python benchmarks/m2f_training_step.py [--device cuda] [--dtype bfloat16] [--threads 1] [--repeats 5]
        [--size 256] [--batch 2] [--heads 8] [--feedforward 1024]

A frozen ViT-S with its adapter computes features once. Pixel decoder, mask transformer and loss of both libraries then
get the same features and targets, start from the same weights, and are timed in turn in one run. A training step is
forward pass, loss of ten predictions, backward pass, clipping and AdamW. Prints one JSON object: parameters and times
of both, theirs divided by ours, and the difference of the first outputs. On the CPU, `ms` is CPU time of all threads;
on CUDA, it is wall time between synchronisations, with peak memory and the number of host waits.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from step_times import cuda_figures, medians
from torch import Tensor, nn

NUM_CLASSES, NUM_QUERIES, HIDDEN_DIM, POINTS = 15, 100, 256, 12544
ENCODER_LAYERS, DECODER_LAYERS = 6, 9
COEFFICIENTS = {"class": 2.0, "mask": 5.0, "dice": 5.0}
NAMES = ("1", "2", "3", "4")

# (our name, their name), in order.
PIXEL_DECODER_NAMES = (
    (r"^input_convs", "input_projections"),
    (r"^encoder\.level_encoding", "level_embed"),
    (r"^encoder\.encoder\.layers", "encoder.layers"),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"\.norm2\.", ".final_layer_norm."),
    (r"\.linear(\d)\.", r".fc\1."),
    (r"^mask_feature\.", "mask_projection."),
    (r"^lateral_convs\.0\.norm", "adapter_1.1"),
    (r"^lateral_convs\.0", "adapter_1.0"),
    (r"^output_convs\.0\.norm", "layer_1.1"),
    (r"^output_convs\.0", "layer_1.0"),
)
TRANSFORMER_NAMES = (
    (r"^query_feat", "queries_features"),
    (r"^query_embed", "queries_embedder"),
    (r"^post_norm", "decoder.layernorm"),
    (r"^mask_embed\.layers\.(\d)", r"decoder.mask_predictor.mask_embedder.\1.0"),
    (r"^transformer_self_attention_layers\.(\d)\.norm", r"decoder.layers.\1.self_attn_layer_norm"),
    (r"^transformer_cross_attention_layers\.(\d)\.norm", r"decoder.layers.\1.cross_attn_layer_norm"),
    (r"^transformer_ffn_layers\.(\d)\.norm", r"decoder.layers.\1.final_layer_norm"),
    (r"^transformer_(?:self_attention|cross_attention|ffn)_layers", "decoder.layers"),
    (r"multihead_attn", "cross_attn"),
    (r"\.linear(\d)\.", r".fc\1."),
)


@dataclass(frozen=True)
class Side:
    """One of the two compared implementations."""

    head: nn.Module
    """Takes the four feature maps and returns (classes, masks) of each prediction, the final one last."""
    loss: Callable[[Sequence[tuple[Tensor, Tensor]]], Tensor]
    """Weighted sum of the terms of all predictions."""


class OurHead(nn.Module):
    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        from dinov3.eval.segmentation.models.heads.mask2former_head import Mask2FormerHead

        super().__init__()
        self.head = Mask2FormerHead(
            dict.fromkeys(NAMES, (channels,)),
            HIDDEN_DIM,
            NUM_CLASSES,
            num_heads=heads,
            dim_feedforward=feedforward,
            num_queries=NUM_QUERIES,
            num_encoder_layers=ENCODER_LAYERS,
            num_decoder_layers=DECODER_LAYERS,
        )

    def forward(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        outputs = self.head(dict(zip(NAMES, maps, strict=True)))
        return [(each["pred_logits"], each["pred_masks"]) for each in (*outputs["aux_outputs"], outputs)]


class TheirHead(nn.Module):
    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        from transformers.models.mask2former import modeling_mask2former as theirs

        super().__init__()
        config = their_config(heads, feedforward)
        self.pixel_decoder = theirs.Mask2FormerPixelDecoder(config, [channels] * len(NAMES))
        self.transformer = theirs.Mask2FormerTransformerModule(HIDDEN_DIM, config)
        self.classifier = nn.Linear(HIDDEN_DIM, NUM_CLASSES + 1)

    def forward(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        pixels = self.pixel_decoder(maps, output_hidden_states=False, return_dict=True)
        decoded = self.transformer(pixels.multi_scale_features, pixels.mask_features)
        classes = [self.classifier(states.transpose(0, 1)) for states in decoded.intermediate_hidden_states]
        return list(zip(classes, decoded.masks_queries_logits, strict=True))

    def load_ours(self, ours: nn.Module) -> None:
        self.pixel_decoder.load_state_dict(renamed(ours.pixel_decoder.state_dict(), PIXEL_DECODER_NAMES))
        state = ours.predictor.state_dict()
        self.classifier.load_state_dict({name: state.pop(f"class_embed.{name}") for name in ("weight", "bias")})
        self.transformer.load_state_dict(renamed(state, TRANSFORMER_NAMES))


def their_config(heads: int, feedforward: int) -> object:
    from transformers import Mask2FormerConfig

    return Mask2FormerConfig(
        feature_size=HIDDEN_DIM,
        mask_feature_size=HIDDEN_DIM,
        hidden_dim=HIDDEN_DIM,
        encoder_feedforward_dim=feedforward,
        dim_feedforward=feedforward,
        num_attention_heads=heads,
        encoder_layers=ENCODER_LAYERS,
        decoder_layers=DECODER_LAYERS + 1,  # the library builds one less
        num_queries=NUM_QUERIES,
        num_labels=NUM_CLASSES,
        dropout=0.0,
        pre_norm=False,
        train_num_points=POINTS,
        no_object_weight=0.1,
    )


def renamed(state: dict[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Renames our tensors to theirs; they keep the three projections of self-attention separate."""
    result = {}
    for key, value in state.items():
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        stem, joint, kind = key.rpartition("self_attn.in_proj_")
        parts = zip("qkv", value.chunk(3), strict=True) if joint else ()
        result |= {f"{stem}self_attn.{letter}_proj.{kind}": part for letter, part in parts} or {key: value}
    return result


def our_loss(targets: Sequence[dict[str, Tensor]]) -> Callable[[Sequence[tuple[Tensor, Tensor]]], Tensor]:
    from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss

    criterion = MaskClassificationLoss(NUM_CLASSES, POINTS)

    def loss(predictions: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        *auxiliary, last = [{"pred_logits": classes, "pred_masks": masks} for classes, masks in predictions]
        return criterion.total(criterion({**last, "aux_outputs": auxiliary}, targets))

    return loss


def their_loss(targets: Sequence[dict[str, Tensor]]) -> Callable[[Sequence[tuple[Tensor, Tensor]]], Tensor]:
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    criterion = Mask2FormerLoss(their_config(8, 1024), weight_dict={}).to(targets[0]["masks"].device)
    masks, labels = [target["masks"].float() for target in targets], [target["labels"] for target in targets]

    def loss(predictions: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        *auxiliary, last = [
            {"masks_queries_logits": masks.float(), "class_queries_logits": classes.float()}
            for classes, masks in predictions
        ]
        with torch.autocast(targets[0]["masks"].device.type, enabled=False):
            losses = criterion(*last.values(), masks, labels, auxiliary)
        terms = ((name.replace("cross_entropy", "class").split("_")[1], value) for name, value in losses.items())
        return sum(COEFFICIENTS[term] * value for term, value in terms)

    return loss


@torch.no_grad()
def make_features(arguments: argparse.Namespace) -> list[Tensor]:
    """Computes four maps of noise images with a randomly initialised ViT-S."""
    from dinov3.eval.segmentation.models.backbone.dinov3_adapter import DINOv3_Adapter
    from dinov3.hub.backbones import dinov3_vits16

    adapter = DINOv3_Adapter(dinov3_vits16(pretrained=False), (2, 5, 8, 11)).to(arguments.device)
    image = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=arguments.device)
    maps = adapter(image)
    return [maps[name] for name in NAMES]


def make_targets(arguments: argparse.Namespace) -> list[dict[str, Tensor]]:
    shape, device = (arguments.targets, arguments.size, arguments.size), arguments.device
    return [
        {
            "labels": torch.randperm(NUM_CLASSES, device=device)[: arguments.targets],
            "masks": torch.rand(shape, device=device) > 0.5,
        }
        for _ in range(arguments.batch)
    ]


def training_step(side: Side, features: Sequence[Tensor], arguments: argparse.Namespace) -> Callable[[], None]:
    parameters = list(side.head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)

    def step() -> None:
        with torch.autocast(arguments.device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
            loss = side.loss(side.head(features))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 0.01)
        optimizer.step()
        optimizer.zero_grad()

    return step


def forward_pass(side: Side, features: Sequence[Tensor], arguments: argparse.Namespace) -> Callable[[], object]:
    @torch.no_grad()
    def forward() -> object:
        with torch.autocast(arguments.device.type, torch.bfloat16, enabled=arguments.dtype == "bfloat16"):
            return side.head(features)

    return forward


def largest_difference(ours: Side, theirs: Side, features: Sequence[Tensor]) -> float:
    """Compares the first prediction, before rounding can unmask a cell."""
    with torch.no_grad():
        pairs = zip(ours.head(features)[0], theirs.head(features)[0], strict=True)
        return max(((left - right).abs().max() / right.abs().max()).item() for left, right in pairs)


def compare(arguments: argparse.Namespace) -> dict[str, object]:
    features, targets = make_features(arguments), make_targets(arguments)
    settings = (features[0].shape[1], arguments.heads, arguments.feedforward)
    ours, theirs = Side(OurHead(*settings), our_loss(targets)), Side(TheirHead(*settings), their_loss(targets))
    theirs.head.load_ours(ours.head.head)
    sides = {"ours": ours, "transformers": theirs}
    result: dict[str, object] = {}
    for name, side in sides.items():
        side.head.to(arguments.device)
        result[f"{name}_parameters"] = sum(parameter.numel() for parameter in side.head.parameters())
    result["relative_difference"] = float(f"{largest_difference(ours, theirs, features):.1e}")
    for what, make in (("forward", forward_pass), ("training_step", training_step)):
        steps = {name: make(side, features, arguments) for name, side in sides.items()}
        times = medians(steps, arguments.device, arguments.repeats)
        if arguments.device.type == "cuda":
            times = {name: times[name] | cuda_figures(step, arguments.device) for name, step in steps.items()}
        ratios = {kind: round(times["transformers"][kind] / value, 2) for kind, value in times["ours"].items() if value}
        result[what] = times | {"transformers_by_ours": ratios}
    return result


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of autocast")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=2, help="images")
    parser.add_argument("--targets", type=int, default=8, help=f"masks per image, at most {NUM_CLASSES}")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--feedforward", type=int, default=1024, help="hidden width of all feed-forward networks")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    settings = {name: value for name, value in vars(arguments).items() if name != "repeats"}
    print(json.dumps(settings | compare(arguments), indent=2, default=str))


if __name__ == "__main__":
    main()
