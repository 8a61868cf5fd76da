"""Settings and trainers of the networks with a dense head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import nnunetv2.configs
from nnunetv2.errors import UsageError
from nnunetv2.model.model_eomt import EoMTSegmentationModel
from nnunetv2.training.nnUNetTrainer.mymodel_config import load_mymodel_config
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_m2f import nnUNetTrainer_m2f
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_mymodel import nnUNetTrainer_mymodel
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_segformer import nnUNetTrainer_segformer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit
from nnunetv2.training.nnUNetTrainer.segformer_config import load_segformer_config
from nnunetv2.utilities.class_lookup import find_by_name
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

CONFIGS = Path(nnunetv2.configs.__path__[0])
TINY = ["model.backbone_size=tiny", "model.pretrained=false", "training.num_iterations_per_epoch=3"]
TRAINERS = {
    "vit": (nnUNetTrainer_mymodel, ["model.hidden_size=16"]),
    "segformer": (nnUNetTrainer_segformer, ["model.decoder_hidden_size=16"]),
}


def trainer_of(name: str, *words: str, **options: object) -> nnUNetTrainer:
    trainer_class, small = TRAINERS[name]
    overrides = [*TINY, *small, "training.num_epochs=1", "training.num_val_iterations_per_epoch=1", *words]
    return make_trainer(trainer_class, **{f"{name}_overrides": overrides}, **options)


@pytest.mark.parametrize(("name", "load"), [("vit", load_mymodel_config), ("segformer", load_segformer_config)])
def test_the_file_of_defaults_holds_the_defaults(name, load):
    assert load(CONFIGS / f"{name}_default.yaml") == load()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.feature_strategy=fpn", "choose one of layers, pyramid, progressive"),
        ("model.num_encoder_blocks=3", "model.num_encoder_blocks=3 is out of range"),
        ("model.dropout=1", "model.dropout=1.0 is out of range"),
        ("model.hidden_dim=64", "did you mean model.decoder_hidden_size|There is no setting 'model.hidden_dim'"),
    ],
)
def test_wrong_settings_are_refused(override, message):
    with pytest.raises(UsageError, match=message):
        load_segformer_config(None, [override])


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_one_epoch_trains_what_the_settings_say(nnunet_folders, seeded, name, tuning):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = trainer_of(name, f"model.tuning={tuning}")
    trainer.on_train_start()
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    for _ in range(3):
        trainer.train_step(next(trainer.dataloader_train))
    after = trainer.network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    in_backbone = {key for key in changed if key.startswith("encoder.")}
    assert changed - in_backbone
    assert bool(in_backbone) == (tuning != "frozen")
    if tuning == "lora":
        assert all(".lora_" in key for key in in_backbone)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_checkpoint_continues_with_its_settings(nnunet_folders, seeded, name):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    trainer = trainer_of(name)
    trainer.run_training()
    assert (Path(trainer.output_folder) / f"{name}_config.yaml").is_file()
    other = trainer_of(name)
    other.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    for key, value in trainer.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[key])


@pytest.mark.parametrize("name", ["mymodel", "segformer", "m2f"])
def test_variants_without_deep_supervision_are_found_by_name(name):
    variant = find_by_name("trainer", f"nnUNetTrainerNoDeepSupervision_{name}")
    assert issubclass(variant, find_by_name("trainer", f"nnUNetTrainer_{name}"))


def test_the_trainer_of_any_head_trains_the_one_that_the_settings_name(nnunet_folders):
    trainer = make_trainer(nnUNetTrainer_vit, overrides=[*TINY, "model.head=segformer"])
    assert trainer.config.model.head_name == "segformer"
    named = make_trainer(nnUNetTrainer_segformer, segformer_overrides=TINY)
    assert trainer.plans_manager.plans == named.plans_manager.plans
    with pytest.raises(UsageError, match="There is no head 'segfomer'; .* did you mean segformer"):
        make_trainer(nnUNetTrainer_vit, overrides=["model.head=segfomer"])


def test_eomt_trains_behind_the_trainer_of_mask2former(nnunet_folders, seeded):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    words = ["model.type=eomt", "model.num_queries=8", "model.tuning=full", "m2f_train.num_points=64"]
    small = ["training.num_epochs=2", "training.num_val_iterations_per_epoch=1"]
    trainer = make_trainer(nnUNetTrainer_m2f, m2f_overrides=[*TINY, *words, *small])
    trainer.run_training()
    assert type(trainer.network) is EoMTSegmentationModel
    assert trainer.network.head.mask_probability.tolist() == [0.0]  # annealed at the end of the training
    kwargs = trainer.configuration_manager.network_arch_init_kwargs
    assert kwargs["num_queries"] == 8
    assert "hidden_dim" not in kwargs
    other = make_trainer(nnUNetTrainer_m2f, m2f_overrides=[*TINY, *words, *small])
    other.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    for key, value in trainer.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[key])


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["lora.r=4"], "arch_kwargs.lora.r: 8 there, 4 now"),
        (
            ["model.backbone_out_layers=[0,1,2,3]"],
            r"out_layers: FOUR_EVEN_INTERVALS there, \[0, 1, 2, 3\] now",
        ),
        (["model.tuning=frozen"], "arch_kwargs.tuning: lora there, frozen now"),
    ],
)
def test_a_fold_with_other_settings_is_refused_by_their_names_new_or_continued(
    nnunet_folders, seeded, words, difference
):
    write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    first = trainer_of("segformer", "training.batch_size=1")
    first.initialize()
    plans = Path(first.output_folder_base) / "plans.json"
    Path(first.output_folder).mkdir(parents=True, exist_ok=True)
    plans.write_text(json.dumps(first.plans_manager.plans))
    first.save_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    other = trainer_of("segformer", "training.batch_size=1", *words)
    with pytest.raises(UsageError, match=f"holds checkpoints of another architecture: .*{difference}"):
        other.initialize()
    with pytest.raises(UsageError, match=difference):
        other.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    trainer_of("segformer", "training.lr=1e-2", "lora.lora_dropout=0").initialize()  # what may differ
