"""PMT: equal to the published decoder and to a naive one, positions, masked attention and its annealing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dinov3.layers.rope_position_encoding import RopePositionEmbedding
from nnunetv2.errors import UsageError
from nnunetv2.model.backbones import create_backbone
from nnunetv2.model.cost.dataless_network import build_without_data
from nnunetv2.model.cost.model_cost import model_cost
from nnunetv2.model.cost.network_parts import network_parts
from nnunetv2.model.head import Features
from nnunetv2.model.heads.pmt import PlainMaskTransformer, annealing
from nnunetv2.model.query_network import QueryNetwork
from tests.model.heads.head_cases import SPECS, num_parameters, spec_of

GRID, NUM_PREFIX, WIDTH = (4, 6), 5, 32
SPEC = spec_of(WIDTH, num_heads=4)


def tiny_network(num_classes: int = 3, backbone: str = "dinov3_native", **settings: Any) -> QueryNetwork:
    torch.manual_seed(0)
    head = {"name": "pmt", "settings": {"num_queries": 6, "num_layers": 2, **settings}}
    return QueryNetwork(1, num_classes, head=head, backbone=backbone, backbone_size="tiny", tuning="frozen")


def small_head(**settings: Any) -> PlainMaskTransformer:
    """A head whose masks are positive in some places and negative in others."""
    torch.manual_seed(0)
    config = PlainMaskTransformer.Config(**{"num_queries": 7, "num_layers": 3, **settings})
    head = PlainMaskTransformer(config, SPEC, 3)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        head.upscale[-1].norm.bias.zero_()
    return head


def make_features(tokens: list[Tensor], rotation: Tensor | None = None) -> Features:
    """From all tokens of each block, prefix first."""
    return Features(
        image=torch.empty(len(tokens[0]), 3, 16 * GRID[0], 16 * GRID[1]),
        maps=[each[:, NUM_PREFIX:].transpose(1, 2).unflatten(2, GRID) for each in tokens],
        prefix_tokens=[each[:, :NUM_PREFIX] for each in tokens],
        rotation=rotation,
    )


def random_features(dtype: torch.dtype = torch.float32) -> Features:
    tokens = [torch.randn(2, NUM_PREFIX + math.prod(GRID), WIDTH, dtype=dtype) for _ in range(4)]
    sine, cosine = RopePositionEmbedding(WIDTH, num_heads=SPEC.num_heads)(H=GRID[0], W=GRID[1])
    return make_features(tokens, torch.cat((sine, cosine), dim=-1).to(dtype))


def predictions(outputs: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Those of all layers, the last layer's last."""
    return [*outputs["aux_outputs"], outputs]


@pytest.mark.parametrize(("name", "probability"), [("masked", 1.0), ("plain", 0.0)])
def test_all_predictions_equal_those_of_the_published_decoder(oracle_recorded, name, probability):
    with np.load(oracle_recorded / "heads" / "pmt.npz") as file:
        recorded = {key: torch.from_numpy(file[key]) for key in file.files}
    config = PlainMaskTransformer.Config(num_queries=7, lateral_bn=False)
    head = PlainMaskTransformer(config, SPEC, 3).eval()
    prefix = "weights/"
    weights = {key.removeprefix(prefix): value for key, value in recorded.items() if key.startswith(prefix)}
    assert head.load_state_dict(weights, strict=False) == (["rope.periods"], [])
    head.attn_mask_probs.fill_(probability)
    rotation = torch.cat((recorded["in/sin"], recorded["in/cos"]), dim=-1)
    with torch.no_grad():
        ours = predictions(head(make_features([recorded[f"in/tokens_{level}"] for level in range(4)], rotation)))
    assert len(ours) == 7
    if name == "plain":  # recorded without the predictions that only serve the masks
        ours = ours[-1:]
    for layer, mine in enumerate(ours):
        for key, other in (("pred_masks", "masks"), ("pred_logits", "classes")):
            expected = recorded[f"out/{name}_{other}_{layer}"]
            torch.testing.assert_close(mine[key], expected, atol=1e-5, rtol=0)


def naive_predictions(head: PlainMaskTransformer, features: Features, is_masked: bool) -> list[dict[str, Tensor]]:
    """The head written out, with one attention head and one rotated pair of channels at a time."""
    tokens = 0
    for level in range(4):
        x = torch.cat((features.prefix_tokens[level], features.maps[level].flatten(2).transpose(1, 2)), dim=1)
        norm, (into, _, out) = head.bn[level], head.lateral_projections[level]
        x = (x - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias
        tokens = tokens + (x + out(F.gelu(into(x)))) * head.scalers[level]
    queries = head.q.weight[None].expand(len(tokens), -1, -1)
    x = torch.cat((queries, tokens), dim=1)
    first = queries.shape[1] + NUM_PREFIX

    def predict() -> dict[str, Tensor]:
        normed = F.layer_norm(x, (WIDTH,), head.decoder_norm.weight, head.decoder_norm.bias)
        pixels = normed[:, first:].transpose(1, 2).reshape(len(x), WIDTH, *GRID)
        for stage in head.upscale:
            pixels = stage.conv2(F.gelu(stage.conv1(pixels)))
            pixels = F.layer_norm(pixels.movedim(1, -1), (WIDTH,), stage.norm.weight, stage.norm.bias, 1e-6)
            pixels = pixels.movedim(-1, 1)
        one, _, two, _, three = head.mask_head
        masks = three(F.gelu(two(F.gelu(one(normed[:, : queries.shape[1]])))))
        return {
            "pred_logits": head.class_head(normed[:, : queries.shape[1]]),
            "pred_masks": (masks[..., None, None] * pixels[:, None]).sum(dim=2),
        }

    sine, cosine = features.rotation.chunk(2, dim=-1)
    predicted = []
    for block in head.blocks:
        predicted.append(predict())
        allowed = torch.ones(len(x), x.shape[1], x.shape[1], dtype=torch.bool)
        if is_masked:
            masks = F.interpolate(predicted[-1]["pred_masks"], size=GRID, mode="bilinear", align_corners=False)
            allowed[:, : queries.shape[1], first:] = masks.flatten(2) > 0
        normed = F.layer_norm(x, (WIDTH,), block.norm1.weight, block.norm1.bias)
        parts = [getattr(block.attention, f"{name}_proj")(normed) for name in "qkv"]
        width = WIDTH // block.attention.num_heads
        mixed = []
        for start in range(0, WIDTH, width):
            query, key, value = (part[..., start : start + width] for part in parts)
            query, key = (turned(part, sine, cosine, first) for part in (query, key))
            logits = (query @ key.transpose(1, 2) / math.sqrt(width)).masked_fill(~allowed, float("-inf"))
            mixed.append(logits.softmax(dim=-1) @ value)
        x = x + block.attention.o_proj(torch.cat(mixed, dim=-1)) * block.layer_scale1.lambda1
        normed = F.layer_norm(x, (WIDTH,), block.norm2.weight, block.norm2.bias)
        x = x + block.mlp.down_proj(F.gelu(block.mlp.up_proj(normed))) * block.layer_scale2.lambda1
    return [*predicted, predict()]


def turned(x: Tensor, sine: Tensor, cosine: Tensor, first: int) -> Tensor:
    """Pairs (c, c + d / 2) of the patches' channels, turned by their angles."""
    result, half = x.clone(), x.shape[-1] // 2
    for channel in range(half):
        a, b = x[:, first:, channel], x[:, first:, channel + half]
        result[:, first:, channel] = a * cosine[:, channel] - b * sine[:, channel]
        result[:, first:, channel + half] = b * cosine[:, channel + half] + a * sine[:, channel + half]
    return result


@pytest.mark.parametrize("is_masked", [True, False])
def test_all_predictions_equal_those_of_a_naive_decoder_where_masks_hide_patches(is_masked):
    head = small_head().eval().double()
    for norm in head.bn:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    head.attn_mask_probs.fill_(float(is_masked))
    features = random_features(torch.float64)
    with torch.no_grad():
        ours, naive = predictions(head(features)), naive_predictions(head, features, is_masked)
    assert len(ours) == len(naive) == 4
    for mine, other in zip(ours, naive, strict=True):
        assert 0.1 < (mine["pred_masks"] > 0).double().mean() < 0.9
        for key in ("pred_logits", "pred_masks"):
            torch.testing.assert_close(mine[key], other[key], atol=1e-9, rtol=1e-9)


def test_positions_are_those_of_dinov3_where_the_backbone_has_absolute_ones():
    head, features = small_head().eval(), random_features()
    with torch.no_grad():
        given, own = (
            head(Features(features.image, features.maps, features.prefix_tokens, rotation))
            for rotation in (features.rotation, None)
        )
        none = head(Features(features.image, features.maps, features.prefix_tokens, features.rotation * 0 + 1))
    torch.testing.assert_close(own["pred_masks"], given["pred_masks"], atol=1e-5, rtol=1e-5)
    assert (own["pred_masks"] - none["pred_masks"]).abs().max() > 0.1
    backbone = create_backbone("dinov3_native", "tiny")
    of_backbone = PlainMaskTransformer(PlainMaskTransformer.Config(), backbone.spec, 2).rope(H=3, W=5)
    torch.testing.assert_close(torch.cat(of_backbone, dim=-1), backbone.rotation(3, 5))
    assert create_backbone("dinov2", "tiny").rotation(3, 5) is None


def test_positions_are_not_stretched_at_random_in_training():
    head = small_head().train()
    assert not head.rope.is_random


WIDTHS = {"S": 384, "B": 768, "L": 1024}


def test_numbers_of_parameters():
    counts = [num_parameters(PlainMaskTransformer, SPECS[size]) for size in WIDTHS]
    assert counts == [7_603_203, 30_246_915, 53_698_563]


def test_numbers_of_parameters_with_wider_feed_forward_networks():
    counts = [num_parameters(PlainMaskTransformer, SPECS[size], hidden_dim=4 * width) for size, width in WIDTHS.items()]
    assert counts == [12_918_531, 51_494_403, 91_465_731]


def test_number_of_parameters_of_the_smallest_form():
    least = {"lateral_projection": "none", "lateral_bn": False, "num_layers": 1, "num_upscale_blocks": 0}
    width = WIDTHS["S"]
    linear = width * width + width
    layer = 4 * linear - width + 2 * linear + 6 * width  # attention without a bias of the keys, mlp, norms and scales
    around = 4 * width + 100 * width + 2 * width + 3 * linear + 3 * (width + 1)  # scales, queries, norm, masks, classes
    assert num_parameters(PlainMaskTransformer, SPECS["S"], **least) == layer + around


def test_tensors_are_those_of_the_published_files_and_the_periods():
    head = PlainMaskTransformer(PlainMaskTransformer.Config(), SPEC, 2)
    names = list(head.state_dict())
    in_norms = [name for name in names if name.startswith("bn.")]
    assert (len(names), len(in_norms)) == (144 + 20 + 1, 20)
    assert [name for name, _ in head.named_buffers(recurse=False)] == ["attn_mask_probs"]


def test_branches_start_unscaled_and_queries_normal(seeded):
    head = PlainMaskTransformer(PlainMaskTransformer.Config(), SPECS["S"], 2)
    ones = [*head.scalers, *(scale.lambda1 for b in head.blocks for scale in (b.layer_scale1, b.layer_scale2))]
    assert len(ones) == 4 + 12
    assert all((each == 1).all() for each in ones)
    assert head.q.weight.std().item() == pytest.approx(1, abs=0.02)
    assert head.attn_mask_probs.tolist() == [1.0] * 6


def test_batch_norm_counts_all_tokens_of_all_images(seeded):
    head, features = small_head().train(), random_features()
    head(features)
    for level, norm in enumerate(head.bn):
        patches = features.maps[level].flatten(2).transpose(1, 2)
        tokens = torch.cat((features.prefix_tokens[level], patches), dim=1).flatten(0, 1)
        torch.testing.assert_close(norm.running_mean, 0.1 * tokens.mean(dim=0))
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * tokens.var(dim=0))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lateral_projection": "none"}, lambda x, head: x * head.scalers[0]),
        ({"lateral_projection": "linear"}, lambda x, head: (x + head.lateral_projections[0](x)) * head.scalers[0]),
        (
            {"lateral_projection": "linear", "residual_projection": False},
            lambda x, head: head.lateral_projections[0](x) * head.scalers[0],
        ),
    ],
)
def test_other_projections(settings, expected, seeded):
    head, features = small_head(lateral_bn=False, **settings), random_features()
    first = torch.cat((features.prefix_tokens[0], features.maps[0].flatten(2).transpose(1, 2)), dim=1)
    with torch.no_grad():
        for scaler in head.scalers[1:]:
            scaler.zero_()
        torch.testing.assert_close(head._fused(features), expected(first, head))


@pytest.mark.parametrize(
    ("progress", "probabilities"),
    [
        (0.0, [1, 1, 1, 1, 1, 1]),
        (0.075, [0.5**0.9, 1, 1, 1, 1, 1]),
        (4 / 15, [0, 1, 1, 1, 1, 1]),
        (4 / 15 + 1 / 12, [0, 0.5**0.9, 1, 1, 1, 1]),
        (4 / 15 + 0.1 + 1 / 24, [0, 0.15**0.9, 0.75**0.9, 1, 1, 1]),
        (2 / 3 + 1 / 24, [0, 0, 0, 0, 0.15**0.9, 0.75**0.9]),
        (5 / 6, [0] * 6),
        (1.0, [0] * 6),
    ],
)
def test_layers_are_annealed_one_after_the_other_as_published(progress, probabilities):
    head = small_head(num_layers=6)
    head.set_training_progress(progress)
    assert head.attn_mask_probs.tolist() == pytest.approx(probabilities, abs=1e-6)


def test_other_numbers_of_layers_are_annealed_within_the_same_part_of_the_training():
    assert annealing(1) == [(0.0, 0.15)]
    assert annealing(2) == [(0.0, 0.15), (4 / 15, 1 / 6)]
    assert [start for start, _ in annealing(4)] == pytest.approx([0, 4 / 15, 7 / 15, 2 / 3])


def test_in_training_a_query_is_restricted_as_often_as_the_probability_says(seeded):
    head = small_head(num_queries=2000)
    masks = torch.full((1, 2000, 8, 12), -1.0)
    mask = head.train()._attention_mask(masks, GRID, torch.tensor(0.3))
    opened = mask[0, 0, :2000, 2000 + NUM_PREFIX :]
    assert set(opened.sum(dim=1).tolist()) == {0, math.prod(GRID)}
    assert opened.all(dim=1).double().mean().item() == pytest.approx(0.7, abs=0.04)
    assert mask[0, 0, 2000:].all()
    assert mask[0, 0, :, : 2000 + NUM_PREFIX].all()


def test_a_query_whose_mask_is_empty_attends_to_what_is_no_patch():
    head = small_head().eval()
    with torch.no_grad():
        head.upscale[-1].norm.weight.zero_()
        outputs = head(random_features())
    for each in predictions(outputs):
        assert (each["pred_masks"] == 0).all()
        assert all(each[key].isfinite().all() for key in ("pred_logits", "pred_masks"))


@pytest.mark.parametrize(
    ("backbone", "settings", "stride"),
    [
        ("dinov3_native", {}, 4),
        ("dinov2", {}, 3.5),
        ("dinov2", {"num_upscale_blocks": 1}, 7),
        ("dinov3_native", {"num_upscale_blocks": 0}, 16),
    ],
)
def test_masks_have_a_quarter_of_the_resolution_or_as_said(backbone, settings, stride):
    network = tiny_network(backbone=backbone, **settings)
    masks = network(torch.randn(1, 1, 112, 224), return_queries=True)["pred_masks"]
    assert list(masks.shape) == [1, 6, 112 / stride, 224 / stride]


@pytest.mark.parametrize("backbone", ["dinov3_native", "dinov2"])
@pytest.mark.parametrize("num_classes", [1, 5])
def test_images_of_any_size_are_segmented(backbone, num_classes):
    network = tiny_network(num_classes, backbone).eval()
    for size in ((50, 71), (7, 5)):
        with torch.no_grad():
            logits = network(torch.randn(1, 1, *size))
        assert logits.shape == (1, num_classes, *size)
        assert logits.isfinite().all()


@pytest.mark.parametrize("progress", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("projection", ["mlp", "linear", "none"])
def test_one_small_image_gives_every_parameter_a_gradient_and_the_frozen_backbone_none(progress, projection):
    network = tiny_network(lateral_projection=projection).train()
    network.set_training_progress(progress)
    outputs = network(torch.randn(1, 1, 7, 5), return_queries=True)
    assert len(outputs["aux_outputs"]) == 2
    sum((each[key] ** 2).sum() for each in predictions(outputs) for key in ("pred_logits", "pred_masks")).backward()
    assert [name for name, p in network.head.named_parameters() if p.grad is None] == []
    assert [name for name, p in network.encoder.named_parameters() if p.grad is not None] == []
    assert not network.encoder.training


def test_it_runs_in_bfloat16_as_on_a_gpu():
    network = tiny_network().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network(torch.randn(2, 1, 64, 48), return_queries=True)
    outputs["pred_masks"].float().square().sum().backward()
    assert outputs["pred_masks"].dtype == torch.bfloat16
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("backbone", ["dinov3_native", "dinov2"])
def test_its_costs_are_told_without_data(backbone):
    assert build_without_data(lambda: tiny_network(backbone=backbone)).head.attn_mask_probs.tolist() == [0.0, 0.0]
    cost = model_cost(lambda: tiny_network(backbone=backbone), 1, (64, 64))
    assert {part.name for part in cost.parts} >= {"backbone", "mask transformer", "upscaling", "queries"}


def test_the_parts_have_names():
    labels = list(network_parts(tiny_network()))
    assert labels == [
        "input adapter",
        "backbone",
        "lateral norms",
        "lateral projections",
        "lateral scales",
        "queries",
        "mask transformer",
        "decoder norm",
        "upscaling",
        "mask head",
        "class head",
    ]


def test_the_classifier_is_what_depends_on_the_number_of_classes():
    shapes = [{name: value.shape for name, value in tiny_network(k).state_dict().items()} for k in (2, 5)]
    differing = {name for name, shape in shapes[0].items() if shapes[1][name] != shape}
    network = tiny_network()
    assert differing == {name for name in shapes[0] if network.is_classifier(name)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_queries": 0}, "model.num_queries=0 is out of range"),
        ({"num_layers": 0}, "model.num_layers=0 is out of range"),
        ({"hidden_dim": 0}, "model.hidden_dim=0 is out of range"),
        ({"num_upscale_blocks": 5}, "model.num_upscale_blocks=5 is out of range; it must be between 0 and 4"),
        ({"lateral_projection": "mpl"}, "model.lateral_projection='mpl' is not known.*did you mean mlp"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        PlainMaskTransformer.Config(**settings)


def test_fewer_queries_than_classes_are_refused():
    with pytest.raises(UsageError, match="model.num_queries=6 is below the number of classes, 7"):
        tiny_network(7)
