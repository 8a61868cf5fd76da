"""The setting `input_scale`: backbone and head see an enlarged image, the logits have the size of the given one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nnunetv2.model.model_m2f import M2FSegmentationModel
from nnunetv2.model.model_segformer import SegFormerSegmentationModel
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

M2F = {"hidden_dim": 64, "num_heads": 2, "dim_feedforward": 32, "num_queries": 4, "num_encoder_layers": 1}
HEADS = {
    "segformer": (SegFormerSegmentationModel, {"decoder_hidden_size": 16}),
    "m2f": (M2FSegmentationModel, {**M2F, "num_decoder_layers": 1}),
}


def network_of(head: str, **settings: object) -> torch.nn.Module:
    network_class, small = HEADS[head]
    torch.manual_seed(0)
    return network_class(1, 3, backbone_size="tiny", tuning="frozen", **small, **settings).eval()


@pytest.mark.parametrize(
    ("head", "scale", "multiple", "seen"),
    [
        ("segformer", 4, 4, (224, 160)),
        ("m2f", 4, 8, (224, 160)),
        ("m2f", 3, 32, (192, 192)),
        ("segformer", 1, 16, (64, 48)),
    ],
)
def test_no_more_is_padded_than_the_enlarged_image_needs(head, scale, multiple, seen):
    network = network_of(head, input_scale=scale)
    assert network.image_multiple == multiple
    assert network.adapted(torch.zeros(1, 1, 56, 40)).shape == (1, 3, *seen)


def test_queries_are_those_of_the_enlarged_image():
    image = torch.randn(1, 1, 32, 64)
    enlarged = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.no_grad():
        scaled = network_of("m2f", input_scale=2)(image, return_queries=True)
        plain = network_of("m2f")(enlarged, return_queries=True)
    torch.testing.assert_close(scaled["pred_masks"], plain["pred_masks"])
    torch.testing.assert_close(scaled["pred_logits"], plain["pred_logits"])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(33, 47), (7, 5)])
def test_logits_have_the_size_of_the_image(head, size):
    with torch.no_grad():
        logits = network_of(head, input_scale=3)(torch.randn(1, 1, *size))
    assert logits.shape == (1, 3, *size)
    assert logits.isfinite().all()


def test_the_target_masks_cover_what_the_queries_see(nnunet_folders, seeded):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    words = ["model.backbone_size=tiny", "model.pretrained=false", "model.input_scale=2", "m2f_train.num_points=64"]
    small = [f"model.{name}={value}" for name, value in {**M2F, "num_decoder_layers": 1}.items()]
    trainer = make_trainer(nnUNetTrainer_m2f, m2f_overrides=[*words, *small])
    assert trainer.configuration_manager.network_arch_init_kwargs["input_scale"] == 2
    trainer.initialize()
    data, target = torch.randn(2, 1, 24, 40), torch.zeros(2, 1, 24, 40)
    target[:, :, 8:] = 1
    seen = {}
    original = trainer.loss.forward
    trainer.loss.forward = lambda outputs, targets, valid: (
        seen.update(targets=targets) or original(outputs, targets, valid)
    )
    loss, output = trainer.forward_loss(data, target)
    assert output["pred_masks"].shape[-2:] == (64 // 4, 96 // 4)  # 24 x 40 padded to 32 x 48, enlarged twice
    assert seen["targets"][0]["masks"].shape[-2:] == (32, 48)
    assert loss.isfinite()
