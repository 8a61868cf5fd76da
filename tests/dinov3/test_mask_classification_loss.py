"""The loss: against transformers, against dense losses, and with ignored pixels, empty or too many targets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from dinov3.eval.segmentation import mask_classification_loss
from dinov3.eval.segmentation.loss import point_sampling
from dinov3.eval.segmentation.loss.hungarian_matcher import HungarianMatcher
from dinov3.eval.segmentation.loss.mask_loss_inputs import check_generators
from dinov3.eval.segmentation.loss.point_sampling import WholeImage
from dinov3.eval.segmentation.mask_classification_loss import MaskClassificationLoss, loss_divisors

K = 4
TERMS = ("loss_class", "loss_mask", "loss_dice")


def make_outputs(batch=2, queries=6, num_aux=2, size=8, dtype=torch.float32):
    def prediction():
        return {
            "pred_logits": torch.randn(batch, queries, K + 1, dtype=dtype, requires_grad=True),
            "pred_masks": (torch.randn(batch, queries, size, size, dtype=dtype) * 3).requires_grad_(),
        }

    return {**prediction(), "aux_outputs": [prediction() for _ in range(num_aux)]}


def make_targets(counts=(2, 3), size=16):
    labels = [torch.randperm(max(K, count))[:count] % K for count in counts]
    return [{"labels": label, "masks": torch.rand(len(label), size, size) > 0.5} for label in labels]


def make_certain(outputs, targets):
    """Makes query t predict the class of target t, so that the matching does not hang on the points drawn."""
    with torch.no_grad():
        for image, target in enumerate(targets):
            for query, label in enumerate(target["labels"].tolist()):
                outputs["pred_logits"][image, query, label] += 12
                outputs["pred_masks"][image, query] = 0.0
    return outputs


def make_loss(**kwargs):
    return MaskClassificationLoss(K, **{"num_points": 128, **kwargs})


def leaves(outputs):
    return [p[key] for p in (outputs, *outputs["aux_outputs"]) for key in ("pred_logits", "pred_masks")]


def gradients(outputs, total):
    return torch.autograd.grad(total, leaves(outputs))


class SharedPoints:
    """Points that differ by image, by prediction and by purpose, handed to both losses instead of random ones.

    All predictions of an image are matched at the same points; uncertain points are drawn anew for each.
    """

    def __init__(self, monkeypatch, counts, num_predictions, num_points, queries=6):
        from transformers.models.mask2former import modeling_mask2former

        self.batch, self.num_points, self.num_predictions = len(counts), num_points, num_predictions
        self.matching = torch.rand(self.batch, num_points, 2)
        self.uncertain = torch.rand(num_predictions, self.batch, 3 * num_points, 2)
        self.images = [image for image, count in enumerate(counts) for _ in range(min(count, queries))]
        self.calls = {}
        monkeypatch.setattr(WholeImage, "draw", lambda area, images, n, generator=None: self.ours(images, n))
        monkeypatch.setattr(modeling_mask2former, "torch", self)
        monkeypatch.setattr(point_sampling, "MAPS_PER_CHUNK", 2 * num_predictions)

    def __getattr__(self, name):
        return getattr(torch, name)

    def ours(self, images, n):
        if n == self.num_points:
            return self.matching[images]
        assert len(images) % self.num_predictions == 0
        return self.uncertain[torch.arange(len(images)) % self.num_predictions, images, :n]

    def rand(self, *shape, device=None):
        """Of transformers: matching once per prediction and image, then points once per prediction."""
        call = self.calls[shape[1]] = self.calls.get(shape[1], -1) + 1
        if shape[1] == self.num_points:
            return self.matching[call % self.batch, None]
        return self.uncertain[call, self.images, : shape[1]]


def transformers_losses(outputs, targets, num_points):
    from transformers import Mask2FormerConfig
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    config = Mask2FormerConfig(
        num_labels=K,
        train_num_points=num_points,
        no_object_weight=0.1,
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=5.0,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
    )
    losses = Mask2FormerLoss(config, weight_dict={})(
        outputs["pred_masks"],
        outputs["pred_logits"],
        [target["masks"].float() for target in targets],
        [target["labels"] for target in targets],
        [
            {"masks_queries_logits": aux["pred_masks"], "class_queries_logits": aux["pred_logits"]}
            for aux in outputs["aux_outputs"]
        ],
    )
    return {name.replace("cross_entropy", "class"): value for name, value in losses.items()}


@pytest.mark.parametrize("counts", [(2, 3), (4, 0, 1), (1,), (9, 2)])
def test_all_terms_of_ten_predictions_and_their_gradients_equal_transformers(seeded, monkeypatch, counts):
    outputs = make_outputs(batch=len(counts), num_aux=9)
    targets = make_targets(counts)
    SharedPoints(monkeypatch, counts, num_predictions=10, num_points=200)
    expected = transformers_losses(outputs, targets, num_points=200)
    criterion = make_loss(num_points=200)
    losses = criterion(outputs, targets)
    assert len(losses) == 30
    assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    weight = {"loss_class": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    total = sum(weight[name.rstrip("_0123456789")] * value for name, value in expected.items())
    assert_close(criterion.total(losses), total, atol=1e-5, rtol=1e-5)
    theirs = gradients(outputs, total)
    assert_close(gradients(outputs, criterion.total(losses)), theirs, atol=1e-5, rtol=1e-5)


def test_losses_at_all_pixel_centres_are_the_dense_ones(seeded, monkeypatch):
    size = 8
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centres = torch.stack(((columns + 0.5) / size, (rows + 0.5) / size), dim=-1).view(1, -1, 2)
    monkeypatch.setattr(
        WholeImage, "draw", lambda self, images, n, generator=None: centres[:, :n].expand(len(images), -1, 2)
    )
    outputs, targets = make_outputs(batch=1, num_aux=0), make_targets((2,), size)
    criterion = make_loss(num_points=size * size, oversample_ratio=1.0, importance_sample_ratio=1.0)
    losses = criterion(outputs, targets)

    logits, masks = outputs["pred_masks"][0], targets[0]["masks"].float()
    prob = outputs["pred_logits"][0].softmax(-1)
    cost = torch.empty(6, 2)
    dense = {}
    for q in range(6):
        for t in range(2):
            bce = F.binary_cross_entropy_with_logits(logits[q], masks[t])
            overlap = (logits[q].sigmoid() * masks[t]).sum()
            dice = 1 - (2 * overlap + 1) / (logits[q].sigmoid().sum() + masks[t].sum() + 1)
            dense[q, t] = (bce, dice)
            cost[q, t] = 5 * bce + 5 * dice - 2 * prob[q, targets[0]["labels"][t]]
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    best = min(pairs, key=lambda pair: (cost[pair[0], 0] + cost[pair[1], 1]).item())
    classes = torch.full((6,), K)
    classes[list(best)] = targets[0]["labels"]
    weight = torch.tensor([1.0] * K + [0.1])
    assert_close(losses["loss_mask"], (dense[best[0], 0][0] + dense[best[1], 1][0]) / 2)
    assert_close(losses["loss_dice"], (dense[best[0], 0][1] + dense[best[1], 1][1]) / 2)
    assert_close(losses["loss_class"], F.cross_entropy(outputs["pred_logits"][0], classes, weight=weight))


def test_each_coefficient_weighs_its_own_term():
    criterion = make_loss(class_coefficient=2.0, mask_coefficient=3.0, dice_coefficient=7.0)
    terms = {"loss_class": 1.0, "loss_mask": 10.0, "loss_dice": 100.0}
    auxiliary = {"loss_class_0": 0.1, "loss_mask_0": 0.01, "loss_dice_0": 0.001}
    losses = {name: torch.tensor(value, dtype=torch.float64) for name, value in {**terms, **auxiliary}.items()}
    expected = 2.0 + 30.0 + 700.0 + 0.2 + 0.03 + 0.007
    assert_close(criterion.total(losses), torch.tensor(expected, dtype=torch.float64))


def test_matching_weighs_its_costs_as_the_loss_weighs_its_terms():
    criterion = make_loss(class_coefficient=2.0, mask_coefficient=3.0, dice_coefficient=7.0)
    assert criterion.matcher == HungarianMatcher(
        class_coefficient=2.0, mask_coefficient=3.0, dice_coefficient=7.0, num_points=128
    )
    assert MaskClassificationLoss(K).matcher == HungarianMatcher()


def test_loss_names_last_and_auxiliary_terms(seeded):
    criterion = make_loss()
    losses = criterion(make_outputs(num_aux=11), make_targets())
    assert set(losses) == {f"{term}{suffix}" for term in TERMS for suffix in ("", *[f"_{i}" for i in range(11)])}
    by_hand = sum({"c": 2, "m": 5, "d": 5}[name[5]] * value for name, value in losses.items())
    assert_close(criterion.total(losses), by_hand)


def test_loss_works_without_auxiliary_outputs(seeded):
    outputs = make_outputs(num_aux=0)
    del outputs["aux_outputs"]
    assert set(make_loss()(outputs, make_targets())) == set(TERMS)


def test_larger_masks_of_the_last_prediction_change_no_term_of_the_others(seeded, monkeypatch):
    points = torch.rand(1, 3 * 128, 2)
    monkeypatch.setattr(WholeImage, "draw", lambda area, images, n, *_: points[:, :n].expand(len(images), -1, -1))
    outputs, targets = make_outputs(size=8), make_targets()
    larger = {**outputs, "pred_masks": torch.randn(2, 6, 16, 16)}
    first, second = outputs["aux_outputs"]
    mixed = make_loss()(larger, targets)
    last = make_loss()({**larger, "aux_outputs": ()}, targets)
    auxiliary = make_loss()({**first, "aux_outputs": (second,)}, targets)
    expected = {term: last[term] for term in TERMS}
    expected |= {f"{term}_0": auxiliary[term] for term in TERMS}
    expected |= {f"{term}_1": auxiliary[f"{term}_0"] for term in TERMS}
    assert_close(mixed, expected)
    assert len({value.item() for value in mixed.values()}) == 9


def test_order_of_queries_and_targets_does_not_matter(seeded):
    targets = make_targets()
    outputs = make_certain(make_outputs(num_aux=0), targets)
    order = torch.tensor([3, 1, 5, 4, 0, 2])
    permuted = {key: outputs[key][:, order] for key in ("pred_logits", "pred_masks")}
    turned = [{key: value.flip(0) for key, value in target.items()} for target in targets]
    criterion = make_loss(num_points=4096)  # many points: what is left is the noise of sampling
    expected = criterion(outputs, targets)
    assert_close(criterion(permuted, turned), expected, rtol=0.02, atol=0)


def test_empty_targets_give_zero_mask_loss_with_gradient(seeded):
    outputs = make_outputs()
    criterion = make_loss()
    losses = criterion(outputs, make_targets((0, 0)))
    assert losses["loss_mask"].item() == losses["loss_dice_1"].item() == 0.0
    no_object = F.cross_entropy(outputs["pred_logits"].flatten(0, 1), torch.full((12,), K))
    assert_close(losses["loss_class"], no_object)
    for leaf, gradient in zip(leaves(outputs), gradients(outputs, criterion.total(losses)), strict=True):
        assert gradient.any() == (leaf.ndim == 3)


def test_one_empty_image_of_two_is_fine(seeded):
    losses = make_loss()(make_outputs(), make_targets((0, 2)))
    assert all(value.isfinite() and value > 0 for value in losses.values())


def test_more_targets_than_queries_count_matched_pairs_only(seeded):
    outputs = make_outputs(batch=1, queries=2, num_aux=1)
    criterion = make_loss()
    losses = criterion(outputs, make_targets((4,)))
    assert all(value.isfinite() for value in losses.values())
    # every query has a target, so there is no "no object" in the class loss
    assert (losses["loss_class"] > 0).item()
    assert all(gradient.any() for gradient in gradients(outputs, criterion.total(losses)))
    alone = criterion(outputs, [{key: value[:2] for key, value in make_targets((4,))[0].items()}])
    assert set(alone) == set(losses)


def test_costs_that_are_not_finite_are_counted(seeded):
    outputs, targets = make_outputs(num_aux=0), make_targets((2, 2))
    criterion = make_loss()
    criterion(outputs, targets)
    assert criterion.num_nonfinite_costs == 0
    with torch.no_grad():
        outputs["pred_masks"][0, 1] = float("nan")
    losses = criterion(outputs, targets)
    assert criterion.num_nonfinite_costs == 2
    assert losses["loss_mask"].isfinite()  # five other queries of the image were free


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_predictions_give_the_loss_of_their_float32_values(seeded, dtype):
    outputs, targets = make_outputs(num_aux=0), make_targets()
    half = {key: outputs[key].to(dtype) for key in ("pred_logits", "pred_masks")}
    exact = {key: value.float() for key, value in half.items()}
    criterion = make_loss()
    values = []
    for given, autocast in ((half, True), (exact, False)):
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            values.append(criterion.total(criterion(given, targets)))
    assert values[0].dtype == torch.float32
    assert_close(values[0], values[1])


def test_gradients_are_right(seeded, monkeypatch):
    points = torch.rand(64, 2)
    monkeypatch.setattr(
        WholeImage, "draw", lambda self, images, n, generator=None: points[:n].expand(len(images), n, 2)
    )
    outputs = make_outputs(batch=2, queries=3, num_aux=0, size=3, dtype=torch.float64)
    targets, criterion = make_targets((1, 2), 6), make_loss(num_points=9, importance_sample_ratio=0.0)

    def total(logits, masks):
        return criterion.total(criterion({"pred_logits": logits, "pred_masks": masks}, targets))

    assert torch.autograd.gradcheck(total, (outputs["pred_logits"], outputs["pred_masks"]))


def test_what_lies_in_ignored_pixels_changes_nothing(seeded):
    outputs, targets = make_outputs(size=16), make_targets()
    valid = torch.zeros(2, 16, 16, dtype=torch.bool)
    valid[0, :, :6] = valid[1, 9:, 3:] = True
    criterion, totals = make_loss(), []
    for fill in (False, True):
        changed = [
            {**target, "masks": torch.where(v, target["masks"], fill)} for target, v in zip(targets, valid, strict=True)
        ]
        torch.manual_seed(5)
        totals.append(criterion.total(criterion(outputs, changed, valid)))
    assert_close(totals[0], totals[1])
    for leaf, gradient in zip(leaves(outputs), gradients(outputs, totals[1]), strict=True):
        if leaf.ndim == 4:  # a prediction is read bilinearly, so the pixel next to a valid one may have a gradient
            near = F.max_pool2d(valid[:, None].float(), 3, stride=1, padding=1).bool()
            assert not gradient[~near.expand_as(gradient)].any()
            assert gradient.any()


def test_everything_valid_is_the_loss_without_a_mask(seeded):
    targets = make_targets()
    outputs = make_certain(make_outputs(num_aux=0), targets)
    criterion = make_loss(num_points=8192)
    expected = criterion(outputs, targets)
    everything = criterion(outputs, targets, torch.ones(2, 16, 16, dtype=torch.bool))
    assert_close(everything, expected, rtol=0.03, atol=0)


def test_fully_ignored_image_adds_nothing(seeded):
    targets = make_targets((2, 2))
    outputs = make_certain(make_outputs(), targets)
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    valid[1] = False
    criterion = make_loss()
    both = criterion(outputs, targets, valid)
    for gradient in gradients(outputs, criterion.total(both)):
        assert gradient[0].any()
        assert not gradient[1].any()
    first = {key: outputs[key][:1] for key in ("pred_logits", "pred_masks")}
    alone = criterion(first, targets[:1], valid[:1])
    assert_close(both["loss_class"], alone["loss_class"])
    assert_close(both["loss_dice"], alone["loss_dice"], rtol=0.1, atol=0)  # the divisor is 2 masks in both cases


def test_fully_ignored_batch_is_zero_with_gradient(seeded):
    outputs = make_outputs()
    criterion = make_loss()
    losses = criterion(outputs, make_targets((0, 2)), torch.zeros(2, 16, 16, dtype=torch.bool))
    total = criterion.total(losses)
    assert total.item() == 0.0
    assert not any(gradient.any() for gradient in gradients(outputs, total))


def test_two_processes_with_one_image_each_average_to_one_with_both(seeded, monkeypatch):
    outputs, targets, criterion = make_outputs(num_aux=1), make_targets((1, 4)), make_loss()
    halves = [
        {
            **{key: outputs[key][rank : rank + 1] for key in ("pred_logits", "pred_masks")},
            "aux_outputs": [{key: value[rank : rank + 1] for key, value in outputs["aux_outputs"][0].items()}],
        }
        for rank in range(2)
    ]
    together = criterion(outputs, targets, generators=make_generators(2))
    sums = []
    monkeypatch.setattr(mask_classification_loss, "is_distributed", lambda: True)
    monkeypatch.setattr(mask_classification_loss.dist, "get_world_size", lambda: 2)
    for collect in (sums.append, lambda tensor: tensor.copy_(sum(sums[:2]))):
        monkeypatch.setattr(mask_classification_loss.dist, "all_reduce", collect)
        apart = [
            criterion(halves[rank], targets[rank : rank + 1], generators=make_generators(2)[rank : rank + 1])
            for rank in range(2)
        ]
    assert len(sums) == 2  # one collective per process
    assert_close({name: (apart[0][name] + apart[1][name]) / 2 for name in together}, together)


def test_every_process_takes_part_in_one_collective_whatever_its_targets(seeded, monkeypatch):
    shapes = []
    monkeypatch.setattr(mask_classification_loss, "is_distributed", lambda: True)
    monkeypatch.setattr(mask_classification_loss.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(mask_classification_loss.dist, "all_reduce", lambda tensor: shapes.append(tensor.shape))
    for counts, valid in (((2, 3), 1), ((0, 0), 1), ((9, 0), 1), ((2, 2), 0)):
        make_loss()(make_outputs(), make_targets(counts), torch.full((2, 16, 16), valid, dtype=torch.bool))
    assert shapes == [(1 + 3,)] * 4


def test_divisors_are_never_zero():
    masks, classes = loss_divisors(torch.tensor(0), torch.zeros(2))
    assert masks.item() == 1.0
    assert (classes > 0).all()


def make_generators(number):
    return [torch.Generator().manual_seed(50 + image) for image in range(number)]


@pytest.mark.parametrize("with_valid", [False, True])
def test_generators_make_the_points_of_an_image_its_own(seeded, monkeypatch, with_valid):
    monkeypatch.setattr(point_sampling, "MAPS_PER_CHUNK", 4)  # borders of chunks fall within and between images
    counts = (3, 0, 2)
    outputs, targets = make_outputs(batch=3, num_aux=1), make_targets(counts)
    valid = torch.rand(3, 16, 16) > 0.3 if with_valid else None
    criterion = make_loss()

    def losses(images):
        part = {key: outputs[key][images] for key in ("pred_logits", "pred_masks")}
        part["aux_outputs"] = [{key: value[images] for key, value in aux.items()} for aux in outputs["aux_outputs"]]
        torch.rand(images[0] + 1)  # the generator of torch plays no part
        generators = [make_generators(3)[image] for image in images]
        chosen = None if valid is None else valid[images]
        return criterion(part, [targets[image] for image in images], chosen, generators)

    together, alone = losses([2, 0, 1]), {image: losses([image]) for image in (0, 2)}
    for name in ("loss_mask", "loss_dice", "loss_mask_0", "loss_dice_0"):
        sums = [count * alone[image][name] for image, count in ((0, 3), (2, 2))]
        assert_close(together[name], sum(sums) / 5)


def test_loss_is_repeated_by_generators_of_the_same_seed_only(seeded):
    outputs, targets, criterion = make_outputs(), make_targets(), make_loss()
    first, second = (criterion(outputs, targets, generators=make_generators(2)) for _ in range(2))
    assert_close(first, second, atol=0, rtol=0)
    other = criterion(outputs, targets, generators=make_generators(4)[2:])
    assert other["loss_mask"] != first["loss_mask"]


def test_generators_that_do_not_fit_are_refused():
    outputs, targets = make_outputs(), make_targets()
    with pytest.raises(ValueError, match="3 generators were given for 2 images; give one per image"):
        make_loss()(outputs, targets, generators=make_generators(3))
    with pytest.raises(ValueError, match=r"generator of image 1 is on meta and .* on cpu; .*torch.Generator\('cpu'\)"):
        check_generators([torch.Generator(), SimpleNamespace(device=torch.device("meta"))], 2, torch.device("cpu"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o, t, v: (o, t[:1], v), "Targets of 1 images and valid of 2 were given for predictions of 2"),
        (lambda o, t, v: (o, t, v[:, :8]), r"masks of image 0 are \(16, 16\) and valid is \(8, 16\)"),
        (
            lambda o, t, v: (o, [t[0], {**t[1], "labels": t[1]["labels"][:2]}], v),
            r"Image 1 has labels of shape \(2,\) and masks of shape \(3, 16, 16\)",
        ),
        (
            lambda o, t, v: ({**o, "pred_logits": o["pred_logits"][..., :3], "aux_outputs": []}, t, v),
            "Predictions have 3 classes; a loss of 4 classes takes one more",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(change, message):
    arguments = make_outputs(), make_targets(), torch.ones(2, 16, 16, dtype=torch.bool)
    with pytest.raises(ValueError, match=message):
        make_loss()(*change(*arguments))


def test_ratios_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"oversample_ratio of 0.5 and an importance_sample_ratio of 0.75"):
        make_loss(oversample_ratio=0.5)
    with pytest.raises(ValueError, match="0 classes and 128 points were given"):
        MaskClassificationLoss(0, num_points=128)
