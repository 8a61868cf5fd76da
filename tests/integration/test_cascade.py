"""A cascade from raw images to predictions, through the commands: what each stage writes, needs and refuses."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2.errors import UsageError
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry, preprocess_entry
from nnunetv2.inference.predict_entry_points import predict_entry_point
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.run.run_training_vit import run_training_entry as vit_entry
from nnunetv2.utilities.restricted_pickle import load_restricted
from tests.conftest import REPOSITORY
from tests.experiment_planning.tiny_dataset import write_image
from tests.model.heads.small import small_words

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NAME, NUMBER = "Dataset031_Cascade", "31"
SPACING = (1.5, 1.0, 1.0)  # mm, z y x
SPLITS = [
    {"train": ["case_0", "case_1"], "val": ["case_2", "case_3"]},
    {"train": ["case_2", "case_3"], "val": ["case_0", "case_1"]},
]
MODEL = ["-tr", "CascadeTrainerForTests", "-p", "tinyPlans"]
TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class CascadeTrainerForTests(nnUNetTrainer):
    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch, initial_lr = 1, 16, 1, 0.05

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        rotation, dummy_2d, size, _ = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.inference_allowed_mirroring_axes = None  # an eighth of the time
        return rotation, dummy_2d, size, None
"""


def _write_raw(folder: Path) -> None:
    """Four training cases and two test cases: a ball in noise, and a zero border that is cropped away."""
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for number in range(6):
        shape = (30 + number, 36, 40 - number)
        axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
        label = (sum(axis**2 for axis in axes) < 0.5).astype(np.uint8)
        label[(axes[0] ** 2 + (axes[1] + 0.2) ** 2 + axes[2] ** 2) < 0.15] = 2
        image = np.random.RandomState(number).normal(100, 10, shape) + 80 * label
        image[:, :3] = 0
        is_training = number < 4
        subset = "imagesTr" if is_training else "imagesTs"
        write_image(folder / subset / f"case_{number}_0000.nii.gz", image.astype(np.float32), SPACING)
        if is_training:
            write_image(folder / "labelsTr" / f"case_{number}.nii.gz", label, SPACING)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "ball": 1, "core": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "splits_final.json").write_text(json.dumps(SPLITS))


def _shrink_networks(plans_file: Path) -> None:
    plans = json.loads(plans_file.read_text())
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            arguments = configuration["architecture"]["arch_kwargs"]
            num_stages = arguments["n_stages"]
            arguments["features_per_stage"] = [4] * num_stages
            arguments["n_conv_per_stage"] = [1] * num_stages
            arguments["n_conv_per_stage_decoder"] = [1] * (num_stages - 1)
    plans_file.write_text(json.dumps(plans))


class Cascade:
    """Folders of the experiment, and what the commands said on the way."""

    def __init__(self, root: Path) -> None:
        self.raw, self.preprocessed, self.results = (
            root / variable for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        )
        self.root = root
        self.dataset = self.preprocessed / NAME
        self.images = self.raw / NAME / "imagesTs"
        self.messages: dict[str, str] = {}

    def model(self, configuration: str) -> Path:
        return self.results / NAME / f"CascadeTrainerForTests__tinyPlans__{configuration}"

    @property
    def predicted_next_stage(self) -> Path:
        return self.model("3d_lowres") / "predicted_next_stage" / "3d_cascade_fullres"

    def log(self, configuration: str, fold: int) -> str:
        return "".join(path.read_text() for path in (self.model(configuration) / f"fold_{fold}").glob("training_log_*"))


def _train(configuration: str, fold: int, *flags: str) -> int:
    return run_training_entry([NUMBER, configuration, str(fold), *MODEL, "-device", "cpu", *flags])


def _predict(configuration: str, images: Path, output: Path, *flags: str) -> list[str]:
    where = ["-i", str(images), "-o", str(output), "-d", NUMBER, "-c", configuration, "-f", "0"]
    return [*where, *MODEL, "-device", "cpu", *flags]


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cascade]:
    """Plans, preprocesses and trains both stages; the mistakes that users make come in between."""
    built = Cascade(tmp_path_factory.mktemp("cascade"))
    trainers = built.root / "trainers"
    trainers.mkdir()
    (trainers / "cascade_trainer_for_tests.py").write_text(TRAINER)
    environment = {
        "nnUNet_raw": built.raw,
        "nnUNet_preprocessed": built.preprocessed,
        "nnUNet_results": built.results,
        "nnUNet_extTrainer": trainers,
        "nnUNet_n_proc_DA": 0,
        "nnUNet_def_n_proc": 1,
        "nnUNet_compile": "f",
        "OMP_NUM_THREADS": 1,
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, str(value))
        _write_raw(built.raw / NAME)
        options = ["-gpu_memory_target", "0.014", "-overwrite_plans_name", "tinyPlans"]
        assert plan_and_preprocess_entry(["-d", NUMBER, "-npfp", "1", "--no_pp", *options]) == 0
        _shrink_networks(built.dataset / "tinyPlans.json")
        preprocess = ["-d", NUMBER, "-plans_name", "tinyPlans", "-np", "1", "-c"]
        assert preprocess_entry([*preprocess, "3d_lowres"]) == 0

        assert _train("3d_lowres", 0, "--seed", "1") == 0  # before the next stage is preprocessed
        assert not built.predicted_next_stage.exists()
        built.messages["unprepared"] = built.log("3d_lowres", 0)
        assert preprocess_entry([*preprocess, "3d_cascade_fullres"]) == 0
        assert _train("3d_lowres", 0, "--val") == 0
        built.messages["one fold"] = _error_of(lambda: _train("3d_cascade_fullres", 0))
        assert not built.model("3d_cascade_fullres").exists()
        assert _train("3d_lowres", 1, "--seed", "1", "--npz") == 0
        assert _train("3d_cascade_fullres", 0, "--seed", "1", "--npz") == 0
        yield built


def _error_of(command: Callable[[], int], exit_code: int = 2) -> str:
    """What a command says on stderr before it ends."""
    with contextlib.redirect_stderr(io.StringIO()) as text:
        assert command() == exit_code
    return text.getvalue()


def test_plans_have_all_stages(cascade: Cascade) -> None:
    configurations = json.loads((cascade.dataset / "tinyPlans.json").read_text())["configurations"]
    assert list(configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    assert configurations["3d_cascade_fullres"] == {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    assert configurations["3d_lowres"]["next_stage"] == "3d_cascade_fullres"
    folders = {path.name for path in cascade.dataset.iterdir() if path.is_dir()}
    assert folders == {"gt_segmentations", "tinyPlans_3d_lowres", "tinyPlans_3d_fullres"}


def test_missing_next_stage_is_told_before_and_after_the_training(cascade: Cascade) -> None:
    log = cascade.messages["unprepared"]
    command = "nnUNetv2_preprocess -d 31 -plans_name tinyPlans -c 3d_cascade_fullres"
    assert log.index(command) < log.index("Training done")
    assert log.count("No input for next stage 3d_cascade_fullres from case") == 2
    assert "preprocess 3d_cascade_fullres first, then use --val" in log


def test_missing_folds_of_the_previous_stage_are_named(cascade: Cascade) -> None:
    message = cascade.messages["one fold"]
    assert "starts from the segmentations of 3d_lowres, and those of 2 of 4 cases are not in" in message
    assert "(case_0, case_1)" in message
    assert f"run: nnUNetv2_train {NAME} 3d_lowres 1 -tr CascadeTrainerForTests -p tinyPlans" in message


def test_segmentations_for_the_next_stage_are_those_of_validation_on_its_grid(cascade: Cascade) -> None:
    files = sorted(path.name for path in cascade.predicted_next_stage.iterdir())
    assert files == [f"case_{number}.b2nd" for number in range(4)]
    for number in range(4):
        segmentation = blosc2.open(str(cascade.predicted_next_stage / f"case_{number}.b2nd"))
        image = blosc2.open(str(cascade.dataset / "tinyPlans_3d_fullres" / f"case_{number}.b2nd"))
        assert (segmentation.shape, segmentation.dtype) == (image.shape[1:], np.uint8)
        fold = 0 if number >= 2 else 1
        validated = cascade.model("3d_lowres") / f"fold_{fold}" / "validation" / f"case_{number}.nii.gz"
        whole = sitk.GetArrayFromImage(sitk.ReadImage(str(validated)))
        properties = load_restricted(cascade.dataset / "tinyPlans_3d_fullres" / f"case_{number}.pkl")
        inside = whole[tuple(slice(*map(int, ends)) for ends in properties["bbox_used_for_cropping"])]
        assert inside.any()
        # Full resolution is the resolution of these images, so the grids are the same up to rounding.
        assert inside.shape == segmentation.shape
        assert (inside == segmentation[:]).mean() > 0.99


def test_cascade_validates_like_any_model(cascade: Cascade) -> None:
    folder = cascade.model("3d_cascade_fullres") / "fold_0" / "validation"
    expected = {f"case_{number}{ending}" for number in (2, 3) for ending in (".nii.gz", ".npz", ".pkl")}
    assert {path.name for path in folder.iterdir()} == expected | {"summary.json"}
    scores = json.loads((folder / "summary.json").read_text())["foreground_mean"]
    assert scores["Dice"] > 0.2  # nothing is 0; the ball is eight standard deviations brighter than what is around it


def test_network_sees_the_previous_labels(cascade: Cascade) -> None:
    from nnunetv2.utilities.checkpoint_io import load_checkpoint

    shapes = {}
    for configuration in ("3d_lowres", "3d_cascade_fullres"):
        content = load_checkpoint(cascade.model(configuration) / "fold_0" / "checkpoint_final.pth")
        shapes[configuration] = content["network_weights"]["encoder.stages.0.0.convs.0.conv.weight"].shape[1]
    assert shapes == {"3d_lowres": 1, "3d_cascade_fullres": 1 + 2}


def test_prediction_in_processes_of_their_own(cascade: Cascade, tmp_path: Path) -> None:
    """As users do it: the first stage's model, then the second one on top."""
    script = "import sys; from nnunetv2.inference.predict_entry_points import predict_entry_point as p; sys.exit(p())"
    lowres, fullres = tmp_path / "lowres", tmp_path / "fullres"
    commands = [
        _predict("3d_lowres", cascade.images, lowres),
        _predict("3d_cascade_fullres", cascade.images, fullres, "-prev_stage_predictions", str(lowres)),
    ]
    for words in commands:
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=REPOSITORY, env=os.environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for folder in (lowres, fullres):
        names = {"dataset.json", "plans.json", "predict_from_raw_data_args.json", "case_4.nii.gz", "case_5.nii.gz"}
        assert {path.name for path in folder.iterdir()} == names
    first, second = (sitk.GetArrayFromImage(sitk.ReadImage(str(f / "case_4.nii.gz"))) for f in (lowres, fullres))
    assert second.shape == first.shape == (34, 36, 36)
    assert second.any()
    arguments = json.loads((fullres / "predict_from_raw_data_args.json").read_text())
    assert arguments["folder_with_segs_from_prev_stage"] == str(lowres)


def test_case_without_previous_segmentation_leaves_the_others_complete(
    cascade: Cascade, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """One case has a previous segmentation without any foreground, the other one has none."""
    image = sitk.ReadImage(str(cascade.images / "case_4_0000.nii.gz"))
    previous, output = tmp_path / "previous", tmp_path / "output"
    previous.mkdir()
    empty = sitk.GetImageFromArray(np.zeros(sitk.GetArrayFromImage(image).shape, np.uint8))
    empty.CopyInformation(image)
    sitk.WriteImage(empty, str(previous / "case_4.nii.gz"))
    words = _predict("3d_cascade_fullres", cascade.images, output, "-prev_stage_predictions", str(previous))
    assert predict_entry_point(words) != 0
    assert (output / "case_4.nii.gz").is_file()
    assert not (output / "case_5.nii.gz").exists()
    assert (
        f"There is no {previous / 'case_5.nii.gz'}; segment the image with 3d_lowres first" in capsys.readouterr().err
    )


def test_python_interface_takes_the_previous_labels_and_asks_for_them(cascade: Cascade) -> None:
    import torch

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(cascade.model("3d_cascade_fullres")), (0,))
    reader = predictor.plans_manager.image_reader_writer_class()
    image, properties = reader.read_images([str(cascade.images / "case_4_0000.nii.gz")])
    previous = [np.full(image.shape, label, np.uint8) for label in (0, 1)]
    scores = [predictor.predict_single_npy_array(image, properties, labels, None, True)[1] for labels in previous]
    assert np.abs(scores[0] - scores[1]).max() > 0.01
    with pytest.raises(UsageError, match="needs the segmentation by 3d_lowres beside the image"):
        predictor.predict_single_npy_array(image, properties)


@pytest.mark.parametrize(
    ("configuration", "flags", "message"),
    [
        ("3d_cascade_fullres", [], "nnUNetv2_predict -c 3d_lowres) and name the folder of its segmentations"),
        ("3d_cascade_fullres", ["-prev_stage_predictions", "/nowhere"], "There is no folder /nowhere of the previous"),
        ("3d_lowres", ["-prev_stage_predictions", "/nowhere"], "leave out -prev_stage_predictions"),
    ],
)
def test_wrong_use_of_previous_predictions(
    cascade: Cascade, configuration: str, flags: list[str], message: str, tmp_path: Path
) -> None:
    words = _predict(configuration, cascade.images, tmp_path / "output", *flags)
    assert message in _error_of(lambda: predict_entry_point(words))
    assert not (tmp_path / "output").exists()


def test_damaged_segmentation_of_the_previous_stage(cascade: Cascade) -> None:
    damaged = cascade.predicted_next_stage / "case_2.b2nd"
    content = damaged.read_bytes()
    try:
        damaged.write_bytes(content[:50])
        message = _error_of(lambda: _train("3d_cascade_fullres", 0, "--val"), exit_code=3)
    finally:
        damaged.write_bytes(content)
    assert f"{damaged} cannot be read; run the validation (--val) of the previous stage's fold" in message


def test_a_vision_transformer_is_both_stages(cascade: Cascade) -> None:
    lengths = [
        f"training.{name}=1" for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch")
    ]
    settings = [*small_words("segformer", tuning="frozen"), "training.patch_size=[8,32,32]", *lengths]

    def train(configuration: str, fold: int, *words: str) -> int:
        return vit_entry([NUMBER, configuration, str(fold), "-p", "tinyPlans", "-device", "cpu", *settings, *words])

    assert [train("3d_lowres", fold) for fold in (0, 1)] == [0, 0]
    refusal = _error_of(lambda: train("3d_cascade_fullres", 0))
    assert "set model.channel_adaptation=conv1x1, or use" in refusal
    assert train("3d_cascade_fullres", 0, "model.channel_adaptation=conv1x1") == 0
    model = cascade.results / NAME / "nnUNetTrainer_vit__tinyPlans__3d_cascade_fullres"
    planned = json.loads((model / "plans.json").read_text())["configurations"]["3d_cascade_fullres"]
    assert planned["architecture"]["arch_kwargs"]["label_channels"] == 2
    assert json.loads((model / "fold_0" / "validation" / "summary.json").read_text())["metric_per_case"]
