"""A tiny dataset, preprocessed once, and commands that run in this process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tests.faults import trainings, volumes
from tests.training.tiny_dataset import write_tiny_dataset


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, which drive whole commands."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def volumes_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `raw` and `preprocessed` with six small volumes, planned and preprocessed."""
    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry

    root = tmp_path_factory.mktemp("volumes")
    volumes.write_dataset(root / "raw" / volumes.DATASET)
    (root / "preprocessed").mkdir()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("raw", "preprocessed"):
            environment.setenv(f"nnUNet_{name}", str(root / name))
        words = ["-d", volumes.NUMBER, "-c", "3d_fullres", "-npfp", "1", "-np", "1", "--no_pbar"]
        assert plan_and_preprocess_entry(words) == 0
    return root


@pytest.fixture
def raw_volumes(nnunet_folders: dict[str, Path]) -> Path:
    """The raw dataset of six volumes, in this test's own folders."""
    folder = nnunet_folders["nnUNet_raw"] / volumes.DATASET
    volumes.write_dataset(folder)
    return folder


@pytest.fixture
def preprocessed_volumes(volumes_once: Path, nnunet_folders: dict[str, Path]) -> Path:
    """The same dataset preprocessed (`3d_fullres`), with its raw data, in this test's own folders."""
    for name in ("raw", "preprocessed"):
        shutil.copytree(volumes_once / name, nnunet_folders[f"nnUNet_{name}"], dirs_exist_ok=True)
    return nnunet_folders["nnUNet_preprocessed"] / volumes.DATASET


@pytest.fixture
def tiny_images(nnunet_folders: dict[str, Path]) -> Path:
    """A preprocessed 2-D dataset (number 777) whose U-Net trains an epoch in a second."""
    return write_tiny_dataset(nnunet_folders["nnUNet_preprocessed"])


@pytest.fixture
def fault_trainer(tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes `-tr FaultTrainer` known to commands; returns its folder of fold 0 of the tiny images."""
    folder = tmp_path / "trainers"
    folder.mkdir()
    (folder / "fault_trainers.py").write_text(trainings.TRAINERS)
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Path(os.environ["nnUNet_results"]) / tiny_images.name / "FaultTrainer__nnUNetPlans__2d" / "fold_0"


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws fewer voxels for the fingerprint, which otherwise takes seconds for any dataset."""
    monkeypatch.setattr(DatasetFingerprintExtractor, "num_foreground_voxels_for_intensitystats", 1e5)


@pytest.fixture
def short_training(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the length of every training of this process."""

    def set_length(epochs: int = 3, iterations: int = 2, validation_iterations: int = 1, save_every: int = 1) -> None:
        monkeypatch.setattr(nnUNetTrainer, "num_epochs", epochs)
        monkeypatch.setattr(nnUNetTrainer, "num_iterations_per_epoch", iterations)
        monkeypatch.setattr(nnUNetTrainer, "num_val_iterations_per_epoch", validation_iterations)
        monkeypatch.setattr(nnUNetTrainer, "save_every", save_every)

    set_length()
    return set_length


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a command's entry point in this process; returns its exit code and what it wrote to stderr."""

    def run_command(entry: Callable[[list[str]], int], *words: str | Path) -> tuple[int, str]:
        capfd.readouterr()
        try:
            code = entry([str(word) for word in words])
        except SystemExit as err:  # argparse
            code = err.code if isinstance(err.code, int) else 1
        return code, capfd.readouterr().err

    yield run_command


def one_line(stderr: str, *expected: str) -> None:
    """Fails unless a command ended with one error line that has all expected parts, and without a traceback."""
    assert "Traceback" not in stderr, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    missing: Sequence[str] = [part for part in expected if part not in errors[0]]
    assert not missing, f"{missing} not in: {errors[0]}"
