"""Evaluation of a model on a dataset: predictions, views, processes, modes and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from dinov3.eval.segmentation import eval as evaluation  # its `test_segmentation` must not look like a test
from dinov3.eval.segmentation import metrics as metrics_module
from dinov3.eval.segmentation.config import SegmentationConfig
from dinov3.eval.segmentation.eval import (
    evaluate_on_validation_set,
    evaluate_segmentation_model,
    evaluation_mode,
    predict_label_map,
)
from dinov3.eval.segmentation.evaluation.overlays import palette, save_overlay
from dinov3.eval.segmentation.evaluation.results import write_results
from dinov3.eval.segmentation.metrics import SegmentationMetrics
from dinov3.eval.segmentation.training.model_state import trained_state
from dinov3.eval.segmentation.training.saved_model import write_model
from dinov3.eval.segmentation.training.setup import build_model
from dinov3.eval.segmentation.transforms import View
from dinov3.utils.errors import DataError, UsageError
from dinov3.utils.yaml_config import plain_config
from tests.dinov3.fake_backbone import FakeBackbone
from tests.dinov3.fake_segmenters import PixelModel

SIZES = [(20, 26), (9, 30), (33, 14), (16, 16), (40, 12)]
COLOURS = torch.tensor([[250, 0, 0], [0, 250, 0], [0, 0, 250]], dtype=torch.uint8)


class ColourModel(PixelModel):
    """Three classes, the scores of a pixel being its red, green and blue."""

    def __init__(self):
        super().__init__(num_classes=3)
        self.weight = nn.Parameter(torch.eye(3), requires_grad=False)


def write_folder(root: Path, wrong_pixels: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images whose colours say their classes but for some pixels, and a row of each that is to be ignored.

    The label maps count from 1. Returns pairs of the prediction of `ColourModel` and the label from 0.
    """
    generator = np.random.default_rng(7)
    pairs = []
    for index, size in enumerate(SIZES):
        classes = np.kron(generator.integers(0, 3, (5, 5)), np.ones((8, 8), dtype=int))[: size[0], : size[1]]
        label = classes + 1
        label.flat[generator.choice(label.size, wrong_pixels, replace=False)] = 1
        label[0] = 0
        for kind, pixels in (("images", COLOURS.numpy()[classes]), ("annotations", label.astype(np.uint8))):
            path = root / kind / "validation" / f"picture_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        pairs.append((classes, np.where(label == 0, 255, label - 1)))
    return pairs


def make_config(root: Path, **kwargs) -> SegmentationConfig:
    config = SegmentationConfig(bs=3, num_workers=0, device="cpu", **kwargs)
    config.datasets.root, config.datasets.val = str(root), "ADE20K:split=VAL"
    config.decoder_head.type, config.decoder_head.num_classes = "linear", 3
    config.eval.crop_size, config.eval.stride = 16, 12
    config.eval.reduce_zero_label = True
    return config


def expected_results(pairs, **kwargs):
    counts = SegmentationMetrics(3, **kwargs)
    for prediction, label in pairs:
        counts.update(torch.from_numpy(prediction), torch.from_numpy(label))
    return counts.compute()


@pytest.mark.parametrize("mode", ["slide", "whole"])
@pytest.mark.parametrize("use_tta", [False, True])
def test_folder_is_evaluated_with_every_mode_and_view(tmp_path, mode, use_tta):
    config = make_config(tmp_path)
    config.eval.mode, config.transforms.eval.tta_ratios = mode, [1.0, 2.0]
    pairs = write_folder(tmp_path)
    model = ColourModel()
    results = evaluate_on_validation_set(model, config, "cpu", use_tta=use_tta)
    inputs = {size[-2:] for size in model.sizes}
    if mode == "slide":
        assert max(map(max, inputs)) == 16
    else:
        doubled = [(2 * height, 2 * width) for height, width in SIZES] if use_tta else []
        assert inputs == {*SIZES, *doubled}
        assert len(model.sizes) == len(SIZES) * (4 if use_tta else 1)
    if use_tta:  # resizing blurs borders of the classes
        assert 90 < results["mIoU"] < 100
        assert results["num_images"] == len(SIZES)
    else:
        assert_close(results, expected_results(pairs), rtol=0, atol=0, equal_nan=True)
        assert results["aAcc"] < 100


def test_metrics_per_image_are_a_setting(tmp_path):
    pairs, config = write_folder(tmp_path), make_config(tmp_path)
    config.eval.compute_metric_per_image = True
    results = evaluate_on_validation_set(ColourModel(), config, "cpu")
    assert_close(results, expected_results(pairs, compute_metric_per_image=True), rtol=0, atol=0, equal_nan=True)
    assert results["mIoU"] != expected_results(pairs)["mIoU"]


def test_processes_share_the_images_and_agree_on_the_results(tmp_path, monkeypatch):
    pairs, config = write_folder(tmp_path), make_config(tmp_path)
    shares, seen = [], []
    monkeypatch.setattr(metrics_module, "gather", lambda value: shares.append(value) or [value])
    monkeypatch.setattr(evaluation, "save_overlay", lambda folder, name, *rest: seen.append(name))
    config.eval.save_overlays, config.output_dir = True, str(tmp_path)
    for rank in range(3):
        monkeypatch.setattr(evaluation, "rank_and_world_size", lambda rank=rank: (rank, 3))
        evaluate_on_validation_set(ColourModel(), config, "cpu")
    assert sorted(seen) == [f"picture_{index}" for index in range(len(SIZES))]
    monkeypatch.setattr(metrics_module, "gather", lambda value: shares)
    results = SegmentationMetrics(3).reduce().compute()
    assert_close(results, expected_results(pairs), rtol=0, atol=0, equal_nan=True)


def test_process_without_images_takes_part(tmp_path, monkeypatch):
    write_folder(tmp_path)
    monkeypatch.setattr(evaluation, "rank_and_world_size", lambda: (7, 8))
    assert evaluate_on_validation_set(ColourModel(), make_config(tmp_path), "cpu")["num_images"] == 0


def test_mean_of_probabilities_decides():
    class Brightness(PixelModel):
        """Two classes, scores (0, red)."""

        def __init__(self):
            super().__init__(num_classes=2)
            self.weight = nn.Parameter(torch.tensor([[0.0, 0, 0], [1, 0, 0]]), requires_grad=False)

    # Logits of class 1: 1 and 1 and -9. Their mean is negative; the mean of sigmoids is 0.487 and with 2, 2, -9: 0.587.
    for low, winner in ((1.0, 0), (2.0, 1)):
        views = [View(torch.full((3, 4, 4), value), is_flipped=False) for value in (low, low, -9.0)]
        prediction = predict_label_map(Brightness(), views, (4, 4))
        assert prediction.dtype == torch.int64
        assert torch.equal(prediction, torch.full((4, 4), winner))


def test_flipped_views_are_flipped_back():
    image = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(3))
    views = [View(image, is_flipped=False), View(image.flip(-1), is_flipped=True)]
    assert torch.equal(predict_label_map(ColourModel(), views, (6, 8)), image.argmax(dim=0))


def test_views_put_together_on_other_devices_are_averaged(monkeypatch):
    class Placed:
        """Numbers on a device that is only a name; they add up with those of the same device alone."""

        def __init__(self, values, device):
            self.values, self.device = values, device

        def to(self, device):
            return Placed(self.values, device)

        def add_(self, other):
            assert other.device == self.device
            return Placed(self.values + other.values, self.device)

        def __getitem__(self, index):
            return self.values[index]

    views = [View(torch.zeros(3, 1, 1), is_flipped=False)] * 2
    scores = iter(
        [Placed(torch.tensor([[[[0.6]], [[0.4]]]]), "cuda"), Placed(torch.tensor([[[[0.3]], [[0.7]]]]), "cpu")]
    )
    monkeypatch.setattr(evaluation, "make_inference", lambda *_, **__: next(scores))
    assert predict_label_map(ColourModel(), views, (1, 1)).tolist() == [[1]]


def test_windows_of_a_view_share_forward_passes(tmp_path):
    write_folder(tmp_path)
    model = ColourModel()
    evaluate_on_validation_set(model, make_config(tmp_path), "cpu")  # bs=3
    assert [size[0] for size in model.sizes] == [3, 1, 3, 3, 1, 3]  # 4, 3, 3, 1 and 3 windows


def test_every_module_gets_its_mode_back_even_after_an_error():
    model = nn.ModuleList([nn.Linear(1, 1), nn.Sequential(nn.Dropout())])
    model.train()
    model[0].eval()
    before = [module.training for module in model.modules()]

    def fail():
        with evaluation_mode(model):
            assert not any(module.training for module in model.modules())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert [module.training for module in model.modules()] == before == [True, False, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_runs_under_the_wanted_number_format(dtype):
    class Watching(ColourModel):
        def predict(self, images, rescale_to):
            assert not self.training
            assert torch.is_autocast_enabled("cpu") == (dtype == torch.bfloat16)
            return super().predict(images, rescale_to)

    label = torch.zeros(8, 8, dtype=torch.int64)
    samples = [("one", [View(torch.ones(3, 8, 8), is_flipped=False)], label)]
    results = evaluate_segmentation_model(Watching().train(), samples, "cpu", 8, 8, "linear", 3, dtype)
    assert results["num_images"] == 1


def test_pictures_show_reference_and_prediction(tmp_path, monkeypatch):
    (first, *_), config = write_folder(tmp_path), make_config(tmp_path, output_dir=str(tmp_path / "run"))
    config.eval.save_overlays, config.datasets.class_names = True, ["nucleus", "cytoplasm", "rest"]
    names = []
    monkeypatch.setattr(evaluation, "save_overlay", lambda *given: names.append(given[-1]) or save_overlay(*given))
    evaluate_on_validation_set(ColourModel(), config, "cpu")
    assert names == [["nucleus", "cytoplasm", "rest"]] * len(SIZES)
    folder = tmp_path / "run" / "overlays"
    assert sorted(path.name for path in folder.iterdir()) == [f"picture_{index}.png" for index in range(len(SIZES))]
    picture, (prediction, _) = Image.open(folder / "picture_0.png"), first
    colour = (np.array(palette(3)[prediction[4, 4]]) + COLOURS[prediction[4, 4]].numpy()) / 2
    assert np.abs(np.array(picture.getpixel((SIZES[0][1] + 8 + 4, 4))) - colour).max() <= 0.5


@pytest.fixture
def tiny_config(tmp_path):
    write_folder(tmp_path)
    config = make_config(tmp_path, output_dir=str(tmp_path / "run"))
    config.decoder_head.backbone_out_layers = "FOUR_LAST"
    config.decoder_head.hidden_dim, config.decoder_head.num_heads = 64, 4
    config.decoder_head.dim_feedforward, config.decoder_head.num_queries = 48, 8
    config.decoder_head.num_encoder_layers = config.decoder_head.num_decoder_layers = 1
    config.eval.crop_size = config.eval.stride = 32
    config.load_from = str(tmp_path / "model_final.pth")
    return config


def backbone():
    torch.manual_seed(0)
    return FakeBackbone(embed_dim=32)


@pytest.mark.parametrize("head", ["linear", "m2f"])
def test_saved_weights_are_evaluated(tiny_config, head, tmp_path):
    tiny_config.decoder_head.type = head
    trained = build_model(backbone(), tiny_config)
    with torch.no_grad():
        for parameter in trained.segmentation_model[1].parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    torch.save({"model": trained_state(trained)}, tiny_config.load_from)
    tiny_config.eval.use_tta = True
    results = evaluation.test_segmentation(backbone(), tiny_config)
    expected = evaluate_on_validation_set(trained, tiny_config, "cpu", use_tta=True)
    assert_close(results, expected, rtol=0, atol=0, equal_nan=True)
    assert results["classes"] != evaluate_on_validation_set(trained, tiny_config, "cpu")["classes"]
    write_results(results, tmp_path / "run")
    read = json.loads((tmp_path / "run" / "results-semantic-segmentation.json").read_text())
    assert read["aAcc"] == results["aAcc"]


def test_released_segmentor_is_made_by_the_hub(tiny_config, monkeypatch):
    from dinov3.hub import segmentors

    asked = []
    monkeypatch.setattr(segmentors, "dinov3_vit7b16_ms", lambda **kwargs: asked.append(kwargs) or trained)
    tiny_config.decoder_head.type, tiny_config.load_from = "m2f", "dinov3_vit7b16_ms"
    trained = build_model(backbone(), tiny_config)
    results = evaluation.test_segmentation(None, tiny_config)
    assert asked == [{"autocast_dtype": torch.float32, "check_hash": True}]
    assert results["num_images"] == len(SIZES)
    tiny_config.decoder_head.type = "linear"
    with pytest.raises(UsageError, match="has a Mask2Former head; set decoder_head.type=m2f instead of linear"):
        evaluation.test_segmentation(None, tiny_config)


def test_weights_of_another_model_are_refused(tiny_config):
    trained = build_model(backbone(), tiny_config)
    torch.save({"model": trained_state(trained)}, tiny_config.load_from)
    tiny_config.decoder_head.num_classes = 4
    with pytest.raises(DataError, match=r"model_final.pth do not fit .*set decoder_head.num_classes=3"):
        evaluation.test_segmentation(backbone(), tiny_config)


def saved(config):
    """A model in the file that `config.load_from` names, trained with `config`."""
    write_model(build_model(backbone(), config), plain_config(config), 1, config.load_from)


@pytest.mark.parametrize(
    ("head", "setting", "value", "message"),
    [
        ("linear", "decoder_head.use_backbone_norm", False, "decoder_head.use_backbone_norm was True and is False"),
        ("m2f", "lora.lora_alpha", 32, "lora.lora_alpha was 16 and is 32"),
        (
            "linear",
            "decoder_head.backbone_out_layers",
            "FOUR_EVEN_INTERVALS",
            "decoder_head.backbone_out_layers was FOUR_LAST",
        ),
        ("linear", "transforms.mean", [1.0, 2.0, 3.0], "transforms.mean was"),
    ],
)
def test_weights_are_not_evaluated_with_settings_under_which_they_mean_something_else(
    tiny_config, head, setting, value, message
):
    tiny_config.decoder_head.type = head
    saved(tiny_config)
    evaluation.test_segmentation(backbone(), tiny_config)
    section, _, name = setting.partition(".")
    setattr(getattr(tiny_config, section), name, value)
    with pytest.raises(UsageError, match=f"model_final.pth was trained with other settings: {message}"):
        evaluation.test_segmentation(backbone(), tiny_config)


def test_weights_are_not_evaluated_on_another_backbone(tiny_config):
    saved(tiny_config)
    other = backbone()
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    with pytest.raises(UsageError, match="was trained with other backbone weights; give those it was trained with"):
        evaluation.test_segmentation(other, tiny_config)


def test_weights_with_their_whole_backbone_go_on_any(tiny_config):
    tiny_config.train_backbone = True
    saved(tiny_config)
    tiny_config.train_backbone = False
    other = backbone()
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    assert evaluation.test_segmentation(other, tiny_config)["num_images"] == len(SIZES)


def test_missing_validation_set_is_named(tmp_path):
    config = make_config(tmp_path)
    config.datasets.val = ""
    with pytest.raises(UsageError, match="write for example datasets.val=ADE20K:split=VAL"):
        evaluate_on_validation_set(ColourModel(), config, "cpu")


def test_pictures_without_a_folder_are_refused(tmp_path):
    write_folder(tmp_path)
    config = make_config(tmp_path)
    config.eval.save_overlays, config.output_dir = True, None
    with pytest.raises(UsageError, match="needs a folder to write to; set output_dir"):
        evaluate_on_validation_set(ColourModel(), config, "cpu")


def test_wrong_label_names_its_file(tmp_path):
    write_folder(tmp_path)
    Image.fromarray(np.full(SIZES[2], 9, dtype=np.uint8)).save(tmp_path / "annotations/validation/picture_2.png")
    with pytest.raises(DataError, match=r"picture_2.png holds the label 9; with 3 classes"):
        evaluate_on_validation_set(ColourModel(), make_config(tmp_path), "cpu")


@pytest.mark.parametrize(("value", "error"), [(0, True), (2, False)])
def test_label_maps_that_say_nothing_are_noticed(tmp_path, caplog, value, error):
    write_folder(tmp_path)
    for path in (tmp_path / "annotations" / "validation").glob("*.png"):
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), value)).save(path)
    if error:
        with pytest.raises(DataError, match="All pixels of the label maps of datasets.val=ADE20K:.* are ignored"):
            evaluate_on_validation_set(ColourModel(), make_config(tmp_path), "cpu")
    else:
        evaluate_on_validation_set(ColourModel(), make_config(tmp_path), "cpu")
        assert "hold class 1 alone" in caplog.text
