"""`use_nnunet_augmentation` and `use_sliding_window_inference`, from the settings to the predicted image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dinov3.utils.atomic_files import read_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.data_augmentation.resize_crop_flip import ResizedCropTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_segformer import nnUNetTrainer_segformer
from nnunetv2.training.validation.full_validation import make_predictor
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

SMALL = [
    "model.backbone_size=tiny",
    "model.pretrained=false",
    "model.decoder_hidden_size=16",
    "training.num_epochs=1",
    "training.num_iterations_per_epoch=1",
    "training.num_val_iterations_per_epoch=1",
]
BOTH = ["use_nnunet_augmentation=false", "use_sliding_window_inference=false"]


def trainer_of(*words: str) -> nnUNetTrainer_segformer:
    return make_trainer(nnUNetTrainer_segformer, segformer_overrides=[*SMALL, *words])


def first_transform(trainer: nnUNetTrainer_segformer) -> object:
    return trainer.dataloader_train.data_loader.transforms.transforms[0]


def test_both_switches_reach_training_validation_and_prediction(nnunet_folders, seeded):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = trainer_of(*BOTH)
    trainer.on_train_start()
    trainer.train_step(next(trainer.dataloader_train))
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert isinstance(first_transform(trainer), ResizedCropTransform)
    assert trainer.dataloader_train.data_loader.patch_size == (1, 64, 64)
    assert trainer.dataloader_val.data_loader.patch_size == (1, 32, 32)

    predictor = nnUNetPredictor(device="cpu", allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,))
    assert predictor.allowed_mirroring_axes == (1,)
    image = torch.randn(1, 2, 45, 53)
    network = trainer.network.eval()
    with torch.inference_mode():
        slices = [image[:, index][None] for index in range(2)]
        expected = torch.cat([(network(x) + network(x.flip(-1)).flip(-1)) / 2 for x in slices]).transpose(0, 1).half()
    # The predictor adds LoRA's updates to the weights, so float16 may round a logit the other way.
    torch.testing.assert_close(predictor.predict_logits_from_preprocessed_data(image), expected, rtol=1e-3, atol=1e-4)
    validating = make_predictor(trainer.network, trainer.validation_setting(1, False))
    assert torch.equal(validating.predict_sliding_window_return_logits(image), expected)


def test_by_default_nnunets_augmentation_and_windows_are_used(nnunet_folders, seeded):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = trainer_of()
    trainer.on_train_start()
    assert not isinstance(first_transform(trainer), ResizedCropTransform)
    assert trainer.inference_allowed_mirroring_axes == (0, 1)
    predictor = make_predictor(trainer.network, trainer.validation_setting(1, False))
    assert len(predictor._internal_get_sliding_window_slicers((1, 64, 64))) == 9


@pytest.mark.parametrize("word", BOTH)
def test_each_switch_works_without_the_other(nnunet_folders, seeded, word):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = trainer_of(word)
    trainer.on_train_start()
    predictor = make_predictor(trainer.network, trainer.validation_setting(1, False))
    own_augmentation = isinstance(first_transform(trainer), ResizedCropTransform)
    num_tiles = len(predictor._internal_get_sliding_window_slicers((1, 64, 64)))
    assert (own_augmentation, num_tiles) == ((True, 9) if word == BOTH[0] else (False, 1))
    plans = read_json(Path(trainer.output_folder_base) / "plans.json")
    kwargs = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    assert kwargs.get("use_sliding_window_inference", True) == (word == BOTH[0])
