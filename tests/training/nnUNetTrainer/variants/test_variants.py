"""What variant trainers refuse, repair, or do beside training with other numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import blur_dimension

from nnunetv2.errors import UsageError
from nnunetv2.training.data_augmentation.da5_pipeline import DA5
from nnunetv2.training.data_augmentation.pipeline import training_transforms_of
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.primus import primus_trainers
from nnunetv2.training.nnUNetTrainer.variants.benchmarking.nnUNetTrainerBenchmark_5epochs import (
    nnUNetTrainerBenchmark_5epochs,
)
from nnunetv2.training.nnUNetTrainer.variants.benchmarking.nnUNetTrainerBenchmark_5epochs_noDataLoading import (
    nnUNetTrainerBenchmark_5epochs_noDataLoading,
)
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerCELoss import nnUNetTrainerCELoss
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerDiceLoss import nnUNetTrainerDiceLoss
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerTopkLoss import nnUNetTrainerDiceTopK10Loss
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainer_warmup import nnUNetTrainer_warmup
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdan import nnUNetTrainerAdan1en3
from nnunetv2.training.nnUNetTrainer.variants.sampling.nnUNetTrainer_probabilisticOversampling import (
    nnUNetTrainer_probabilisticOversampling,
)
from nnunetv2.utilities.class_lookup import find_by_name
from tests.training.tiny_dataset import DATASET_JSON, make_trainer, tiny_plans, write_tiny_dataset

CPU = torch.device("cpu")
REGIONS = DATASET_JSON | {"labels": {"background": 0, "both": [1, 2], "right": 2}, "regions_class_order": [1, 2]}


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path]) -> Path:
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerCELoss, nnUNetTrainerDiceTopK10Loss])
def test_losses_of_label_maps_refuse_regions(dataset: Path, trainer_class: type[nnUNetTrainer]) -> None:
    trainer = trainer_class(tiny_plans(), "2d", 0, REGIONS, CPU)
    with pytest.raises(UsageError, match=rf"{trainer_class.__name__} trains label maps, .* are regions.*nnUNetTrainer"):
        trainer.initialize()


def test_dice_alone_leaves_ignored_voxels_out(dataset: Path) -> None:
    labels = DATASET_JSON | {"labels": {"background": 0, "left": 1, "right": 2, "ignore": 3}}
    trainer = nnUNetTrainerDiceLoss(tiny_plans(), "2d", 0, labels, CPU)
    trainer.enable_deep_supervision = False
    loss = trainer._build_loss()
    logits = torch.randn(2, 3, 8, 8)
    target = torch.randint(0, 3, (2, 1, 8, 8))
    target[:, :, :4] = 3
    changed = logits.clone()
    changed[:, :, :4] = torch.randn(2, 3, 4, 8)
    assert loss(logits, target) == loss(changed, target)
    assert loss(logits, target) != loss(logits.flip(1), target)


def test_adan_without_its_package_names_the_package(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adan_pytorch", None)
    with pytest.raises(UsageError, match="nnUNetTrainerAdan1en3 needs .* pip install adan-pytorch"):
        make_trainer(nnUNetTrainerAdan1en3).initialize()


def test_batch_norm_changes_the_network_and_no_plans(dataset: Path) -> None:
    trainer = make_trainer(nnUNetTrainerBN)
    before = json.dumps(trainer.configuration_manager.configuration)
    trainer.initialize()
    assert json.dumps(trainer.configuration_manager.configuration) == before
    layers = {type(module).__name__ for module in trainer.network.modules()}
    assert "BatchNorm2d" in layers
    assert "InstanceNorm2d" not in layers
    configuration = SimpleNamespace(network_arch_init_kwargs={}, network_arch_class_name="a.Net", patch_size=[8, 8])
    with pytest.raises(UsageError, match=r"replaces the argument norm_op .*a\.Net has none"):
        nnUNetTrainerBN.build_network_architecture(None, configuration, 1, 2)


class ChangesItsArguments(nnUNetTrainer):
    """As upstream's nnUNetTrainerBN does."""

    @staticmethod
    def build_network_architecture(plans_manager: Any, configuration_manager: Any, *channels: Any) -> torch.nn.Module:
        configuration_manager.network_arch_init_kwargs["norm_op"] = "torch.nn.BatchNorm2d"
        return nnUNetTrainer.build_network_architecture(plans_manager, configuration_manager, *channels)


def test_a_network_hook_that_changes_its_arguments_can_be_resumed(dataset: Path) -> None:
    trainer = make_trainer(ChangesItsArguments)
    trainer.on_train_start()
    path = str(Path(trainer.output_folder) / "checkpoint_latest.pth")
    trainer.save_checkpoint(path)
    resumed = make_trainer(ChangesItsArguments)
    resumed.load_checkpoint(path)
    resumed.on_train_start()
    assert "BatchNorm2d" in {type(module).__name__ for module in resumed.network.modules()}


@pytest.mark.parametrize("epoch", [3, 70])
def test_resumed_warmup_goes_on_in_its_stage(dataset: Path, tmp_path: Path, epoch: int) -> None:
    trainer = make_trainer(nnUNetTrainer_warmup)
    trainer.initialize()
    trainer.network(torch.zeros(2, 1, 32, 32))[0].sum().backward()
    trainer.optimizer.step()
    trainer.current_epoch = epoch - 1
    path = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))

    resumed = make_trainer(nnUNetTrainer_warmup)
    resumed.load_checkpoint(str(path))
    assert resumed.training_stage == ("warmup_all" if epoch < 50 else "train")
    assert len(resumed.optimizer.state) == len(trainer.optimizer.state) > 0
    resumed.on_train_epoch_start()
    expected = 0.01 * (epoch + 1) / 50 if epoch < 50 else 0.01 * (1 - (epoch - 50) / 950) ** 0.9
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_unknown_stage_of_a_warmup_is_refused(dataset: Path) -> None:
    with pytest.raises(ValueError, match="warmup_all and train, not 'cooldown'"):
        make_trainer(nnUNetTrainer_warmup).configure_optimizers("cooldown")


@pytest.mark.parametrize(("patch_size", "message"), [([32, 32], "three axes"), ([16, 20, 31], r"\[16, 24, 32\]")])
def test_primus_says_which_patches_it_needs(patch_size: list[int], message: str) -> None:
    configuration = SimpleNamespace(patch_size=patch_size)
    with pytest.raises(UsageError, match=message):
        primus_trainers.nnUNet_PrimusV3S_Trainer.build_network_architecture(None, configuration, 1, 2)


def test_primus_of_a_library_without_it_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    architectures = "dynamic_network_architectures.architectures"
    monkeypatch.setattr(f"{architectures}.primus", SimpleNamespace(), raising=False)
    monkeypatch.setitem(sys.modules, f"{architectures}.primus", SimpleNamespace())
    hook = primus_trainers.nnUNet_PrimusV3S_Trainer.build_network_architecture
    with pytest.raises(UsageError, match="PrimusV3S could not be imported.*pip install -U .*dynamic-network"):
        hook(None, SimpleNamespace(patch_size=[8, 8, 8]), 1, 2)


def test_benchmark_is_for_the_first_fold(dataset: Path) -> None:
    with pytest.raises(UsageError, match="train fold 0, not 1"):
        make_trainer(nnUNetTrainerBenchmark_5epochs, fold=1)


def test_benchmark_that_fails_says_so_in_its_result_and_raises(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(nnUNetTrainerBenchmark_5epochs)

    def fail(self: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(nnUNetTrainer, "run_training", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.run_training()
    (entry,) = json.loads((Path(trainer.output_folder) / "benchmark_result.json").read_text()).values()
    assert entry["fastest_epoch"].startswith("Training has ended due to an error")
    assert (entry["num_gpus"], entry["torch_version"]) == (1, torch.__version__)


def test_benchmark_without_data_also_knows_regions(dataset: Path) -> None:
    trainer = nnUNetTrainerBenchmark_5epochs_noDataLoading(tiny_plans(), "2d", 0, REGIONS, CPU)
    trainer.initialize()
    batches, _ = trainer.get_dataloaders()
    assert [tuple(target.shape) for target in next(batches)["target"]] == [(2, 2, 32, 32), (2, 2, 16, 16)]
    assert np.isfinite(trainer.train_step(next(batches))["loss"])


def test_probability_of_foreground_is_the_default_share_in_every_process(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(nnUNetTrainer_probabilisticOversampling)
    assert trainer.oversample_foreground_percent == 0.5  # of two samples, the default forces one
    monkeypatch.setattr("dinov3.utils.processes.process_group.rank_and_world_size", lambda: (1, 2))
    trainer._set_batch_size_and_oversample()
    assert (trainer.batch_size, trainer.oversample_foreground_percent) == (1, 0.5)


@pytest.mark.parametrize("thickness", [3, 4, 5])
def test_da5_takes_patches_of_few_slices(thickness: int) -> None:
    """Upstream's draws rectangles and local changes from empty ranges there, or pads beyond the patch."""
    transforms = training_transforms_of(DA5)((thickness, 12, 12), (-0.1, 0.1), None, (0, 1), False)
    image, labels = torch.randn(1, thickness, 16, 16), torch.zeros(1, thickness, 16, 16, dtype=torch.int16)
    for number in range(12):
        np.random.seed(number)
        torch.manual_seed(number)
        assert transforms(image=image.clone(), segmentation=labels)["image"].shape == (1, thickness, 12, 12)
    blur = transforms.transforms[3].list_of_transforms[1].transform
    for sigma in blur.blur_sigma:
        assert blur_dimension(image, sigma, 0, truncate=6).shape == image.shape


def test_misspelled_trainers_get_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="named 'nnUNetTrainerDA5ordo' .*did you mean nnUNetTrainerDA5ord0 or "):
        find_by_name("trainer", "nnUNetTrainerDA5ordo")
    with pytest.raises(UsageError, match="did you mean nnUNetTrainer_250epochs"):
        find_by_name("trainer", "nnUNetTrainer_250epoch")


def test_the_documentation_names_every_variant() -> None:
    text = (Path(__file__).parents[4] / "docs" / "trainers.md").read_text(encoding="utf-8")
    recorded = json.loads((Path(__file__).parents[3] / "recorded" / "variants.json").read_text())["variants"]
    lengths = {f"nnUNetTrainer_{n}epochs" for n in (5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)}
    lengths |= {f"nnUNetTrainer_{n}epochs_NoMirroring" for n in (250, 2000, 4000, 8000)}
    assert lengths <= set(recorded)
    assert [name for name in recorded if name not in lengths | {"AbstractPrimus"} and f"`{name}`" not in text] == []
