"""`--fast_dev_run`: it tries what a training does, and leaves everything as it was."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.errors import UsageError
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetNumpy
from nnunetv2.run import fast_dev_run, run_training
from nnunetv2.run.fast_dev_prediction import StoredCase, num_patches, size_of_middle
from nnunetv2.run.fast_dev_report import (
    EpochEstimate,
    Stopwatch,
    TrainingLength,
    idle_parameters,
    warning_of_idle_parameters,
)
from nnunetv2.run.fast_dev_sizes import BatchShape, small_batch, with_small_batches
from nnunetv2.run.training_run import TrainingRun
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.class_lookup import find_by_name
from tests.training.tiny_dataset import make_trainer, write_tiny_dataset

WORDS = ["777", "2d", "0", "-device", "cpu", "--fast_dev_run"]
CUSTOM_TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class TrainerTriedInTests(nnUNetTrainer):
    steps = []

    def __init__(self, plans, configuration, fold, dataset_json, device=None):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 7, 8, 9
        self.disable_checkpointing = True

    def adapt_plans(self, plans, configuration):
        plans["configurations"][configuration].update(patch_size=[256, 256], batch_size=3)
        return plans

    def train_step(self, batch):
        self.steps.append(tuple(batch["data"].shape))
        return super().train_step(batch)
"""


@pytest.fixture
def dataset(nnunet_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("nnUNet_n_proc_DA", "3")
    folder = write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])
    fold = model_folder(nnunet_folders) / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_best.pth").write_text("of an earlier training")
    write_json(read_json(folder / "nnUNetPlans.json"), fold.parent / "plans.json")
    return folder


def model_folder(folders: dict[str, Path]) -> Path:
    return folders["nnUNet_results"] / "Dataset777_Tiny" / "nnUNetTrainer__nnUNetPlans__2d"


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything below a folder, except what torch keeps for itself."""
    paths = [path for path in folder.rglob("*") if "torchinductor" not in str(path) and path.name != "temporary"]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in ("nnUNet_results", "nnUNet_n_proc_DA", "nnUNet_wandb_enabled")}


def test_it_tries_everything_and_leaves_nothing(dataset, tmp_path, capsys):
    before = files(tmp_path), environment()
    assert run_training.run_training_entry([*WORDS, "--npz"]) == 0
    assert (files(tmp_path), environment()) == before
    report = capsys.readouterr().out
    for words in (
        "Fast dev run of nnUNetTrainer, Dataset777_Tiny, 2d, fold 0, cpu\n",
        "2 patches of 32 x 32\n",
        "0.003 million, 0.003 million of them trained\n",
        "1 x 40 x 40 voxels; Dice ",
        "for 1000 epochs\n",
        "Fast dev run passed in ",
    ):
        assert words in report


def test_a_failure_leaves_nothing_either(dataset, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise UsageError("this cannot be trained")

    monkeypatch.setattr(nnUNetTrainer, "validation_step", fail)
    before = files(tmp_path), environment()
    assert run_training.run_training_entry(WORDS) == 2
    assert (files(tmp_path), environment()) == before


def test_a_trainer_of_a_users_own_makes_one_step_on_a_small_batch(dataset, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / f"tried_{tmp_path.name}.py").write_text(CUSTOM_TRAINER)
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    assert run_training.run_training_entry([*WORDS, "-tr", "TrainerTriedInTests"]) == 0
    assert find_by_name("trainer", "TrainerTriedInTests").steps == [(2, 1, 128, 128)]
    report = capsys.readouterr().out
    assert "2 patches of 128 x 128, on the CPU instead of 3 patches of 256 x 256" in report
    assert "cannot be told from smaller batches" in report


def test_a_case_that_takes_long_is_cut_down_to_its_middle(dataset, monkeypatch, capsys):
    monkeypatch.setattr(fast_dev_run, "_SECONDS_FOR_A_CASE", 0)
    assert run_training.run_training_entry(WORDS) == 0
    assert "the middle 1 x 32 x 40 of the 1 x 40 x 40 voxels of case_" in (report := capsys.readouterr().out)
    assert ", without mirroring; Dice " in report


def test_what_the_training_would_refuse_is_refused(dataset, nnunet_folders, capsys):
    assert run_training.run_training_entry([*WORDS, "-pretrained_weights", "absent.pth"]) == 2
    assert "absent.pth" in capsys.readouterr().err
    plans = read_json(dataset / "nnUNetPlans.json")
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] = [8, 8, 8]
    write_json(plans, model_folder(nnunet_folders) / "plans.json")
    assert run_training.run_training_entry(WORDS) == 2
    assert "holds checkpoints of another architecture: arch_kwargs.features_per_stage" in capsys.readouterr().err


def test_a_missing_reference_is_found_before_the_training(dataset, capsys):
    for path in (dataset / "gt_segmentations").iterdir():
        path.unlink()
    assert run_training.run_training_entry(WORDS) == 3
    assert "which the validation needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"continue_training": True}, "--c"),
        ({"only_validate": True}, "--val"),
        ({"validate_best": True}, "--val_best"),
        ({"disable_checkpointing": True}, "--disable_checkpointing"),
    ],
)
def test_flags_that_contradict_it_are_refused(settings, flag):
    with pytest.raises(UsageError, match=f"predicts with its last checkpoint; leave out {flag}$"):
        TrainingRun("1", "2d", 0, fast_dev_run=True, **settings)


def test_several_processes_are_refused(dataset, capsys):
    assert run_training.run_training_entry([*WORDS, "-num_gpus", "2"]) == 2
    assert "--fast_dev_run tries one process; leave out -num_gpus 2" in capsys.readouterr().err


POOLING_7_TIMES, POOLING_5_TIMES = [[1, 1], *[[2, 2]] * 7], [[1, 1, 1], *[[2, 2, 2]] * 5]


@pytest.mark.parametrize(
    ("planned", "strides", "small"),
    [
        ((12, (512, 512)), [], (2, (128, 128))),
        ((1, (512, 96)), [], (1, (128, 96))),
        ((12, (448, 576)), [[1, 1], *[[2, 2]] * 6], (2, (128, 128))),
        ((12, (512, 512)), POOLING_7_TIMES, (2, (128, 256))),
        ((12, (96, 320)), [[1, 1], [3, 2], [1, 2]], (2, (96, 128))),
        ((12, (300, 320)), [[1, 1], [3, 2], [1, 2]], (2, (126, 128))),
        ((2, (128, 128, 128)), POOLING_5_TIMES, (2, (64, 64, 64))),
        ((2, (20, 320, 256)), [[1, 1, 1], *[[1, 2, 2]] * 2, *[[2, 2, 2]] * 2, *[[1, 2, 2]] * 2], (2, (20, 64, 64))),
        ((9, (40, 56, 40)), [[1, 1, 1], *[[2, 2, 2]] * 3], (2, (40, 56, 40))),
    ],
)
def test_small_batches_can_be_pooled_and_normalised(planned, strides, small):
    result = small_batch(BatchShape(*planned), strides)
    assert (result.batch_size, result.patch_size) == small
    units = [int(np.prod(of_axis)) for of_axis in zip(*strides, strict=True)] or [1, 1]
    assert all(side % unit == 0 for side, unit in zip(result.patch_size, units, strict=True))
    assert np.prod(np.divide(result.patch_size, units)) > 1


def test_smaller_batches_are_written_to_the_plans_under_the_trainers_own_name(dataset):
    class LargePatches(nnUNetTrainer):
        def adapt_plans(self, plans: dict, configuration: str) -> dict:
            plans["configurations"][configuration].update(patch_size=[160, 192], batch_size=4)
            return plans

    trainer = make_trainer(with_small_batches(LargePatches))
    assert type(trainer).__name__ == "LargePatches"
    assert trainer.planned_batch == BatchShape(4, (160, 192))
    stored = trainer.my_init_kwargs["plans"]["configurations"]["2d"]
    assert (stored["batch_size"], stored["patch_size"]) == (2, [128, 128])
    assert (trainer.batch_size, trainer.configuration_manager.patch_size) == (2, [128, 128])


@pytest.mark.parametrize(
    ("step", "num_workers", "epoch"),
    [
        (2.0, 0, "about 52 s"),
        (1.0, 2, "about 17 s, limited by the 2 processes that load and augment"),
        (2.0, 6, "about 22 s"),
    ],
)
def test_an_epoch_is_as_fast_as_the_slower_of_network_and_workers(step, num_workers, epoch):
    facts = EpochEstimate(TrainingLength(30, 10, 4), step, 0.5, batch=3.0, num_workers=num_workers).facts()
    assert facts["one epoch"] == epoch
    assert (
        facts["whole training"]
        == {0: "about 26 min 0 s", 2: "about 8 min 30 s", 6: "about 11 min 0 s"}[num_workers] + " for 30 epochs"
    )


def test_the_stopwatch_knows_the_last_call_and_the_pause_before_it(monkeypatch):
    times = iter([10.0, 14.0, 15.0, 17.0])
    monkeypatch.setattr("nnunetv2.run.fast_dev_report.time", SimpleNamespace(monotonic=lambda: next(times)))
    watch = Stopwatch(torch.device("cpu"))
    add = watch.timed("add", lambda a, b: a + b)
    assert (add(1, b=2), add(3, 4)) == (3, 7)
    assert (watch.last("add"), watch.before_last("add")) == (2.0, 1.0)


def test_parameters_without_a_gradient_are_told_apart_from_those_that_are_expected():
    network = torch.nn.ModuleDict({name: torch.nn.Linear(2, 1) for name in ("used", "idle", "frozen", "backbone")})
    network["frozen"].requires_grad_(False)
    network["used"](torch.ones(1, 2)).sum().backward()
    # A module of a ModuleDict is an attribute, too: this network has a backbone, as those of the heads have.
    for deep_supervision in (True, False):
        assert idle_parameters(network, deep_supervision) == ["idle.weight", "idle.bias"]
    del network["backbone"]
    assert idle_parameters(network, True) == ["idle.weight", "idle.bias"]
    assert idle_parameters(network, False) == []  # lower outputs of a U-Net without deep supervision
    text = warning_of_idle_parameters([f"p{number}" for number in range(10)])
    assert "no gradient reaches p0, p1, p2, p3, p4, p5, p6, p7 and 2 more. " in text


def test_the_middle_of_a_case_is_a_case():
    labels = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    case = StoredCase("a", torch.from_numpy(labels[None] + 1), labels, {"spacing": [1, 1, 1]}).middle((2, 6, 3))
    np.testing.assert_array_equal(case.labels, labels[1:3, :, 2:5])
    np.testing.assert_array_equal(case.image[0].numpy(), case.labels + 1)
    assert case.properties["bbox_used_for_cropping"] == [[0, 2], [0, 6], [0, 3]]
    assert case.properties["shape_before_cropping"] == (2, 6, 3)


@pytest.mark.parametrize(
    ("image_size", "patch_size", "middle"),
    [
        ((30, 512, 500), (64, 96), (1, 64, 144)),
        ((30, 512, 500), (64, 96, 80), (30, 96, 120)),
        ((1, 9, 9), (8, 8), (1, 8, 9)),
    ],
)
def test_the_middle_is_a_patch_and_a_half(image_size, patch_size, middle):
    assert size_of_middle(image_size, patch_size) == middle


def test_patches_to_predict_count_slices_tiles_and_mirrored_copies():
    from nnunetv2.inference.sliding_window_prediction import tile_slicers

    predictor = SimpleNamespace(
        configuration_manager=SimpleNamespace(patch_size=[32, 32]),
        allowed_mirroring_axes=(0, 1),
        use_mirroring=True,
        _internal_get_sliding_window_slicers=lambda size: tile_slicers(size, (32, 32), 0.5),
    )
    assert num_patches(predictor, (3, 20, 48)) == 4 * 3 * 2
    predictor.use_mirroring = False
    assert num_patches(predictor, (3, 20, 48)) == 3 * 2
    predictor._internal_get_sliding_window_slicers = lambda size: tile_slicers(size, size[1:], 0.5)
    assert num_patches(predictor, (1, 64, 64)) == 4


def test_cases_are_not_unpacked(tmp_path):
    image = np.zeros((1, 2, 2, 2), dtype=np.float32)
    nnUNetDatasetNumpy.save_case(image, image.astype(np.int16), {}, str(tmp_path / "case"))
    as_it_is = fast_dev_run.as_it_is(nnUNetDatasetNumpy)
    as_it_is.unpack_dataset(str(tmp_path), overwrite_existing=False, num_processes=1, verify=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case.npz", "case.pkl"]
    assert as_it_is(str(tmp_path)).load_case("case")[0].shape == image.shape


def test_folders_of_the_real_results_are_found_behind_the_temporary_ones():
    results, scratch = Path("/models"), Path("/tmp/x")
    assert fast_dev_run.real_counterpart("/tmp/x/results/D/T__P__2d", results, scratch) == Path("/models/D/T__P__2d")
    with pytest.raises(UsageError, match="uses /elsewhere/T__P__2d; --fast_dev_run can only try trainers that stay in"):
        fast_dev_run.real_counterpart("/elsewhere/T__P__2d", results, scratch)


TINY_HEADS = {
    "m2f": ["model.hidden_dim=64", "model.num_heads=2", "model.num_queries=5", "model.num_decoder_layers=3"],
    "segformer": [],
    "nodeepsupervision_mymodel": [],
}


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("command", TINY_HEADS)
def test_every_command_has_it_and_takes_a_seed(command, dataset, tmp_path, capsys):
    module = pytest.importorskip(f"nnunetv2.run.run_training_{command}")
    before = files(tmp_path)
    settings = ["model.backbone_size=tiny", "model.pretrained=false", *TINY_HEADS[command]]
    assert module.run_training_entry([*WORDS, "--seed", "3", *settings]) == 0
    assert files(tmp_path) == before
    report = capsys.readouterr().out
    assert "Seed 3: " in report
    assert "Fast dev run passed" in report
