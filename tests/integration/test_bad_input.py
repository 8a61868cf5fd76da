"""Wrong input gets one clear line and a non-zero exit code, and what is on disk stays as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinov3.utils.atomic_files import write_json

DATASET = "Dataset950_BadInput"
Entry = Callable[[list[str]], int]


def write_case(dataset: Path, case: str, *, image: np.ndarray | None = None, label: np.ndarray | None = None) -> None:
    generator = np.random.default_rng(int(case[-1]))
    if image is None:
        image = generator.normal(100, 10, (20, 18, 16)).astype(np.float32)
    if label is None:
        label = np.zeros((20, 18, 16), np.uint8)
        label[5:12, 5:12, 5:12] = 1
    nib.save(nib.Nifti1Image(image, np.eye(4)), dataset / "imagesTr" / f"{case}_0000.nii.gz")
    nib.save(nib.Nifti1Image(label, np.eye(4)), dataset / "labelsTr" / f"{case}.nii.gz")


@pytest.fixture(scope="module")
def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `raw` and `preprocessed`: five small 3-D cases and their plans."""
    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry

    root = tmp_path_factory.mktemp("planned")
    write_dataset(root / "raw" / DATASET)
    (root / "preprocessed").mkdir()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("raw", "preprocessed"):
            environment.setenv(f"nnUNet_{name}", str(root / name))
        assert plan_and_preprocess_entry(["-d", "950", "-npfp", "1", "--no_pp", "--no_pbar"]) == 0
    return root


def write_dataset(folder: Path) -> None:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(5):
        write_case(folder, f"case_{number}")
    write_json(
        {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "organ": 1},
            "numTraining": 5,
            "file_ending": ".nii.gz",
        },
        folder / "dataset.json",
    )


@pytest.fixture
def dataset(planned_once: Path, nnunet_folders: dict[str, Path]) -> Path:
    """The cases in the raw folder."""
    return shutil.copytree(planned_once / "raw" / DATASET, nnunet_folders["nnUNet_raw"] / DATASET)


@pytest.fixture
def planned(dataset: Path, planned_once: Path, nnunet_folders: dict[str, Path]) -> Path:
    """The same dataset with plans, but without preprocessed cases: enough for everything that is checked first."""
    return shutil.copytree(planned_once / "preprocessed" / DATASET, nnunet_folders["nnUNet_preprocessed"] / DATASET)


def contents(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def check(entry: Entry, arguments: list[str], *expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs a command that has to fail with exactly one line on stderr that contains all of `expected`."""
    capsys.readouterr()
    code = entry(arguments)
    error = capsys.readouterr().err
    assert code not in (0, None)
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    for text in expected:
        assert text in lines[0]


def train(arguments: list[str]) -> int:
    from nnunetv2.run.run_training import run_training_entry

    return run_training_entry([*arguments, "-device", "cpu"])


def train_m2f(arguments: list[str]) -> int:
    from nnunetv2.run.run_training_m2f import run_training_entry

    return run_training_entry([*arguments, "-device", "cpu"])


def preprocess(arguments: list[str]) -> int:
    from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry

    return plan_and_preprocess_entry([*arguments, "-np", "1", "-npfp", "1", "--no_pbar"])


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_missing_environment_variable(
    variable: str, planned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(variable)
    check(train, [DATASET, "2d", "0"], f"{variable} is not set", "export", capsys=capsys)


def test_unknown_dataset_id(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(train, ["951", "2d", "0"], "951", DATASET, capsys=capsys)
    check(preprocess, ["-d", "951"], "951", capsys=capsys)


def test_fold_that_does_not_exist(
    planned: Path, nnunet_folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert preprocess(["-d", "950", "-c", "2d"]) == 0
    before = contents(*nnunet_folders.values())
    check(train, ["950", "2d", "first"], "first", capsys=capsys)
    assert contents(*nnunet_folders.values()) == before
    check(train, ["950", "2d", "7"], "fold 7", "0, 1, 2, 3, 4", capsys=capsys)
    assert contents(nnunet_folders["nnUNet_results"]) == {}


def test_wrong_configuration_name(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(train, ["950", "3d_fulres", "0"], "3d_fulres", "3d_fullres", "2d", capsys=capsys)
    check(preprocess, ["-d", "950", "-c", "4d"], "4d", "3d_fullres", "2d", capsys=capsys)


def test_misspelled_trainer_name(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(train, ["950", "2d", "0", "-tr", "nnUNetTrainr"], "nnUNetTrainr", "nnUNetTrainer", capsys=capsys)


def test_misspelled_key_of_the_m2f_config(planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "my.yaml"
    config.write_text("model:\n  backbone_size: tiny\n  hiden_dim: 64\n")
    check(train_m2f, ["950", "2d", "0", "--m2f_config", str(config)], "hiden_dim", "hidden_dim", capsys=capsys)
    check(train_m2f, ["950", "2d", "0", "lora.rank=4"], "lora.rank", capsys=capsys)
    check(train_m2f, ["950", "2d", "0", "--m2f_config", str(tmp_path / "no.yaml")], "no.yaml", capsys=capsys)


def test_3d_configuration_for_a_2d_model(
    planned: Path, nnunet_folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["950", "3d_fullres", "0", "model.backbone_size=tiny", "model.pretrained=false"]
    check(train_m2f, arguments, "3d_fullres", "2d", capsys=capsys)
    assert contents(nnunet_folders["nnUNet_results"]) == {}


def test_pretrained_weights_that_cannot_be_had(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert preprocess(["-d", "950", "-c", "2d"]) == 0
    arguments = ["950", "2d", "0", "model.backbone_size=tiny", "model.pretrained=true"]
    check(train_m2f, arguments, "model.pretrained=false", capsys=capsys)
    arguments = ["950", "2d", "0", "model.backbone_size=small", "model.checkpoint=/no/such.safetensors"]
    check(train_m2f, arguments, "/no/such.safetensors", capsys=capsys)


def test_image_and_label_of_different_shape(
    dataset: Path, nnunet_folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_case(dataset, "case_3", label=np.zeros((20, 18, 15), np.uint8))
    check(preprocess, ["-d", "950", "--verify_dataset_integrity"], "case_3", capsys=capsys)
    check(preprocess, ["-d", "950"], "case_3", capsys=capsys)
    assert not list(nnunet_folders["nnUNet_preprocessed"].rglob("*.b2nd"))


def test_nan_in_an_image(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.ones((20, 18, 16), np.float32)
    image[3, 4, 5] = np.nan
    write_case(dataset, "case_2", image=image)
    check(preprocess, ["-d", "950", "--verify_dataset_integrity"], "case_2", "NaN", capsys=capsys)
    check(preprocess, ["-d", "950"], "case_2", "NaN", capsys=capsys)


def test_a_bad_case_does_not_cost_what_was_preprocessed_before(
    planned: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preprocess(["-d", "950", "-c", "2d"]) == 0
    before = contents(planned)
    assert any(path.suffix == ".b2nd" for path in before)
    image = np.ones((20, 18, 16), np.float32)
    image[3, 4, 5] = np.nan
    write_case(dataset, "case_4", image=image)
    check(preprocess, ["-d", "950", "-c", "2d"], "case_4", "NaN", capsys=capsys)
    after = contents(planned)
    assert {path: after[path] for path in before if path.suffix in (".b2nd", ".pkl")} == {
        path: content for path, content in before.items() if path.suffix in (".b2nd", ".pkl")
    }
    assert after.keys() == before.keys()


def test_unknown_flags_are_errors(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for entry in (train, preprocess):
        with pytest.raises(SystemExit) as stopped:
            entry(["950", "2d", "0", "--clen"] if entry is train else ["-d", "950", "--clen"])
        assert stopped.value.code == 2
        assert "--clen" in capsys.readouterr().err
    check(train_m2f, ["950", "2d", "0", "--clen"], "--clen is no flag of nnUNetv2_train_m2f", capsys=capsys)


def test_a_device_that_is_not_there(
    planned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from nnunetv2.run.run_training import run_training_entry

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check(lambda arguments: run_training_entry(arguments), ["950", "2d", "0"], "cuda", "-device cpu", capsys=capsys)
