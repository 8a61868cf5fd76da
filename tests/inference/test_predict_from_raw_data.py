"""The predictor against upstream's recorded predictions, and its routes against each other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from dinov3.utils.atomic_files import read_json
from nnunetv2.errors import DataError, UsageError
from nnunetv2.inference.logit_predictor import half_precision
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.processes.case_failures import PartialPredictionError
from tests.inference.tiny_models import CPU, IMAGES, PREVIOUS_STAGE, expected, read_image, tiny_predictor

IMAGE = IMAGES / "case_0000.nii.gz"
PROBABILITY_TOLERANCE = 1e-3  # half precision in the logits, and in the recording
EQUAL_VOXELS = 0.9995  # of these images, whose networks are random and undecided in many voxels; one in 2178


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)


def assert_as_upstream(configuration: str, segmentation: np.ndarray, probabilities: np.ndarray) -> None:
    recorded = expected()
    np.testing.assert_allclose(
        probabilities, recorded[f"{configuration}_probabilities"].astype(np.float32), atol=PROBABILITY_TOLERANCE
    )
    assert (segmentation == recorded[f"{configuration}_segmentation"]).mean() >= EQUAL_VOXELS


@pytest.mark.parametrize(
    ("configuration", "folds"), [("3d_fullres", (0, 1)), ("3d_fullres", None), ("2d", (0,)), ("3d_cascade_fullres", 0)]
)
def test_files_are_predicted_as_upstream_does(configuration: str, folds: object, tmp_path: Path) -> None:
    predictor = tiny_predictor(configuration, folds)
    previous = str(PREVIOUS_STAGE) if "cascade" in configuration else None
    predictor.predict_from_files_sequential(str(IMAGES), str(tmp_path), True, True, previous)
    with np.load(tmp_path / "case.npz", allow_pickle=False) as archive:
        assert archive.files == ["probabilities"]
        probabilities = archive["probabilities"]
    assert probabilities.dtype == np.float32
    assert_as_upstream(configuration, labels_of(tmp_path / "case.nii.gz"), probabilities)
    written = nib.load(tmp_path / "case.nii.gz")
    np.testing.assert_allclose(written.affine, nib.load(IMAGE).affine)
    assert written.get_data_dtype() == np.uint8


def test_two_folds_differ_from_one(tmp_path: Path) -> None:
    """Otherwise the averaging of folds above would prove nothing."""
    segmentation = tiny_predictor(folds=(0,)).predict_from_files_sequential(str(IMAGES), None)[0]
    assert (segmentation != expected()["3d_fullres_segmentation"]).mean() > 0.01


def test_arrays_are_predicted_as_files_are() -> None:
    predictor = tiny_predictor()
    image, properties = read_image(predictor)
    before = image.copy(), dict(properties)
    from_file = predictor.predict_from_files(str(IMAGES), None, num_processes_preprocessing=0)[0]
    single = predictor.predict_single_npy_array(image, properties)
    with_scores = predictor.predict_single_npy_array(image, properties, save_or_return_probabilities=True)
    several = predictor.predict_from_list_of_npy_arrays([image, image], None, [properties] * 2, None)
    for other in (single, with_scores[0], *several):
        np.testing.assert_array_equal(other, from_file)
    np.testing.assert_array_equal(with_scores[1].argmax(0), from_file)
    np.testing.assert_array_equal(image, before[0])
    assert properties == before[1]


def test_array_of_a_cascade_is_predicted_as_upstream_does() -> None:
    predictor = tiny_predictor("3d_cascade_fullres")
    reader = predictor.plans_manager.image_reader_writer_class()
    previous, _ = reader.read_seg(str(PREVIOUS_STAGE / "case.nii.gz"))
    image, properties = read_image(predictor)
    result = predictor.predict_single_npy_array(image, properties, previous, None, True)
    assert_as_upstream("3d_cascade_fullres", *result)


def test_array_into_a_file(tmp_path: Path) -> None:
    predictor = tiny_predictor()
    image, properties = read_image(predictor)
    assert predictor.predict_single_npy_array(image, properties, None, str(tmp_path / "x")) is None
    np.testing.assert_array_equal(
        labels_of(tmp_path / "x.nii.gz"), predictor.predict_single_npy_array(image, properties)
    )


def test_preprocessed_array_may_come_as_a_file(tmp_path: Path) -> None:
    predictor = tiny_predictor()
    image, properties = read_image(predictor)
    item = next(predictor.get_data_iterator_from_raw_npy_data(image, None, properties, None, 0))
    path = tmp_path / "data.npy"
    np.save(path, item["data"].numpy())
    as_file = predictor.predict_from_data_iterator([{**item, "data": str(path)}])[0]
    np.testing.assert_array_equal(as_file, predictor.predict_from_data_iterator([item])[0])
    assert not path.exists()


def test_mirroring_and_weights_can_be_switched_off() -> None:
    image, properties = read_image(tiny_predictor())
    results = [
        tiny_predictor(**settings).predict_single_npy_array(image, properties, None, None, True)[1]
        for settings in ({}, {"use_mirroring": False}, {"use_gaussian": False}, {"tile_step_size": 1.0})
    ]
    for other in results[1:]:
        assert np.abs(other - results[0]).max() > 1e-3


def test_manual_initialization_without_parameters_uses_the_network_as_it_is() -> None:
    model = tiny_predictor()
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.zero_()
    managers = (model.plans_manager, model.configuration_manager)
    predictor.manual_initialization(model.network, *managers, None, model.dataset_json, "nnUNetTrainer", (0,))
    assert predictor.predict_logits_from_preprocessed_data(torch.rand(1, 9, 8, 8)).abs().max() == 0
    assert model.predict_logits_from_preprocessed_data(torch.rand(1, 9, 8, 8)).abs().max() > 0


@pytest.mark.slow
def test_network_may_name_the_half_precision_that_it_is_predicted_in(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, wide = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    wide.autocast_dtype = torch.bfloat16
    compiled = torch.compile(wide)
    assert isinstance(half_precision(wide, CPU), dummy_context)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: (args, kwargs))  # there may be no GPU here
    chosen = [half_precision(network, torch.device("cuda", 0)) for network in (plain, wide, compiled)]
    assert chosen == [(("cuda",), {"dtype": dtype}) for dtype in (torch.float16, torch.bfloat16, torch.bfloat16)]


def test_image_must_have_four_axes() -> None:
    with pytest.raises(UsageError, match=r"shape \(9, 8, 8\)"):
        tiny_predictor().predict_sliding_window_return_logits(torch.rand(9, 8, 8))


def test_output_folder_describes_the_prediction(tmp_path: Path) -> None:
    predictor = tiny_predictor()
    predictor.predict_from_files(str(IMAGES), str(tmp_path / "a" / "b"), num_processes_preprocessing=0)
    folder = tmp_path / "a" / "b"
    files = {"case.nii.gz", "dataset.json", "plans.json", "predict_from_raw_data_args.json"}
    assert {path.name for path in folder.iterdir()} == files
    assert read_json(folder / "plans.json") == predictor.plans_manager.plans
    assert read_json(folder / "dataset.json") == predictor.dataset_json
    arguments = read_json(folder / "predict_from_raw_data_args.json")
    assert arguments["list_of_lists_or_source_folder"] == str(IMAGES)
    assert (arguments["overwrite"], arguments["num_processes_preprocessing"]) == (True, 0)


@pytest.fixture
def three_cases(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        shutil.copy(IMAGE, folder / f"{name}_0000.nii.gz")
    return folder


def test_parts_share_the_cases(three_cases: Path, tmp_path: Path) -> None:
    for part, names in ((0, ["a", "c"]), (1, ["b"])):
        output = tmp_path / str(part)
        tiny_predictor().predict_from_files(str(three_cases), str(output), num_parts=2, part_id=part)
        assert sorted(path.name[0] for path in output.glob("*.nii.gz")) == names


def test_explicit_lists_of_files(three_cases: Path, tmp_path: Path) -> None:
    inputs = [[three_cases / "b_0000.nii.gz"], [str(three_cases / "a_0000.nii.gz")]]
    tiny_predictor().predict_from_files(inputs, [tmp_path / "x", str(tmp_path / "y")])
    assert sorted(path.name for path in tmp_path.glob("*.nii.gz")) == ["x.nii.gz", "y.nii.gz"]
    assert len(tiny_predictor().predict_from_files(inputs, None)) == 2


Damage = Callable[[Path], None]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:60]),
        lambda path: path.unlink(),
    ],
    ids=["empty", "cut off", "missing"],
)
@pytest.mark.parametrize("file", ["b.nii.gz", "b.npz"])
def test_continuing_repeats_only_what_cannot_be_read(
    damage: Damage, file: str, three_cases: Path, tmp_path: Path
) -> None:
    predictor, output = tiny_predictor(), tmp_path / "out"
    predictor.predict_from_files_sequential(str(three_cases), str(output), save_probabilities=True)
    whole = {path.name: path.read_bytes() for path in output.glob("*.nii.gz")}
    stamps = {path.name: path.stat().st_mtime_ns for path in output.glob("*.n*")}
    damage(output / file)
    predictor.predict_from_files_sequential(str(three_cases), str(output), save_probabilities=True, overwrite=False)
    assert {path.name: path.read_bytes() for path in output.glob("*.nii.gz")} == whole
    changed = {name for name, stamp in stamps.items() if (output / name).stat().st_mtime_ns != stamp}
    assert changed == {"b.nii.gz", "b.npz"}


def test_continuing_with_everything_there_does_nothing(three_cases: Path, tmp_path: Path) -> None:
    predictor, output = tiny_predictor(), tmp_path / "out"
    assert predictor.predict_from_files(str(three_cases), str(output)) == [None, None, None]
    assert predictor.predict_from_files(str(three_cases), str(output), overwrite=False) is None


def test_one_bad_case_does_not_stop_the_others(three_cases: Path, tmp_path: Path) -> None:
    predictor, output, clean = tiny_predictor(), tmp_path / "out", tmp_path / "clean"
    predictor.predict_from_files(str(three_cases), str(clean))
    image = three_cases / "b_0000.nii.gz"
    good = image.read_bytes()
    image.write_bytes(good[:200])
    with pytest.raises(PartialPredictionError, match=r"1 of 3 cases failed: b \(.*b_0000") as raised:
        predictor.predict_from_files(str(three_cases), str(output))
    assert raised.value.exit_code == 4
    for name in ("a.nii.gz", "c.nii.gz"):
        assert (output / name).read_bytes() == (clean / name).read_bytes()
    assert not list(output.glob("*b*"))
    assert list(read_json(output / "failures.json")) == ["b"]

    image.write_bytes(good)
    predictor.predict_from_files(str(three_cases), str(output), overwrite=False)
    assert (output / "b.nii.gz").read_bytes() == (clean / "b.nii.gz").read_bytes()
    assert not (output / "failures.json").exists()


def test_failing_export_leaves_no_half_file(three_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = tiny_predictor()
    writer = predictor.plans_manager.image_reader_writer_class

    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(writer, "write_seg", fail)
    with pytest.raises(RuntimeError, match=r"a \(OSError: No space left on device\)"):
        predictor.predict_from_files(str(three_cases), str(tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_array_that_fails_raises_at_once() -> None:
    predictor = tiny_predictor()
    image, properties = read_image(predictor)
    with pytest.raises(DataError, match="2 input channels where this model needs 1|channel"):
        predictor.predict_from_list_of_npy_arrays([np.vstack((image, image))], None, [properties], None)


def test_wrong_number_of_channels(tmp_path: Path) -> None:
    for channel in range(3):
        shutil.copy(IMAGE, tmp_path / f"case_{channel:04d}.nii.gz")
    with pytest.raises(DataError, match=r"case has _0001, _0002, which is no channel .*one channel is needed"):
        tiny_predictor().predict_from_files(str(tmp_path), str(tmp_path / "out"))


@pytest.mark.parametrize("names", [[], ["case.nii", "notes.txt"]])
def test_no_images_in_the_folder(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    found = "case.nii, notes.txt" if names else "it is empty"
    with pytest.raises(DataError, match=rf"named CASE_0000\.nii\.gz .*{found}"):
        tiny_predictor().predict_from_files(str(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("num_parts", "part_id"), [(2, 2), (2, -1), (0, 0)])
def test_part_out_of_range(num_parts: int, part_id: int) -> None:
    with pytest.raises(UsageError, match="from 0 to num_parts - 1"):
        tiny_predictor().predict_from_files(str(IMAGES), None, num_parts=num_parts, part_id=part_id)


def test_cascade_needs_the_previous_stage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3d_lowres first .*-prev_stage_predictions"):
        tiny_predictor("3d_cascade_fullres").predict_from_files(str(IMAGES), None)
    with pytest.raises(
        UsageError, match="no folder .*/nowhere of the previous stage's .*nnUNetv2_predict -c 3d_lowres"
    ):
        tiny_predictor("3d_cascade_fullres").predict_from_files(
            str(IMAGES), None, folder_with_segs_from_prev_stage=str(tmp_path / "nowhere")
        )
    with pytest.raises(DataError, match=f"{tmp_path}/case.nii.gz; segment the image with 3d_lowres first"):
        tiny_predictor("3d_cascade_fullres").predict_from_files(
            str(IMAGES), str(tmp_path / "out"), folder_with_segs_from_prev_stage=str(tmp_path)
        )


def test_previous_stage_is_only_for_cascades() -> None:
    with pytest.raises(UsageError, match="leave out -prev_stage_predictions"):
        tiny_predictor().predict_from_files(str(IMAGES), None, folder_with_segs_from_prev_stage=str(PREVIOUS_STAGE))


def test_array_that_cannot_be_converted_raises_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = tiny_predictor()
    image, properties = read_image(predictor)

    def fail(*args: object) -> None:
        raise ValueError("odd logits")

    monkeypatch.setattr(type(predictor.label_manager), "convert_logits_to_segmentation", fail)
    with pytest.raises(ValueError, match="odd logits"):
        predictor.predict_from_list_of_npy_arrays([image, image], None, [properties, properties], None)


def test_each_process_predicts_its_share_and_the_first_describes_it(tmp_path: Path) -> None:
    for name in "abc":
        shutil.copy(IMAGES / "case_0000.nii.gz", tmp_path / f"{name}_0000.nii.gz")
    predictor = tiny_predictor()
    for rank, names in ((1, ["b"]), (0, ["a", "c"])):
        predictor.share = (rank, 2)
        output = tmp_path / f"out_{rank}"
        predictor.predict_from_files_sequential(str(tmp_path), str(output))
        assert sorted(path.name[0] for path in output.glob("*.nii.gz")) == names
        assert (output / "dataset.json").exists() == (rank == 0)


@pytest.mark.parametrize("save_probabilities", [False, True])
def test_predictions_are_returned_and_saved_with_their_names(
    save_probabilities: bool, three_cases: Path, tmp_path: Path
) -> None:
    predictor, keep = tiny_predictor(), {"return_predictions": True}
    image, properties = read_image(predictor)
    files = [[str(path)] for path in sorted(three_cases.iterdir())]
    outputs = [str(tmp_path / "list" / name) for name in ("x", "y.nii.gz", "z")]
    (tmp_path / "arrays").mkdir()
    arrays = [[image] * 2, None, [properties] * 2]
    results = {
        "folder": predictor.predict_from_files(
            str(three_cases), str(tmp_path / "folder"), save_probabilities, num_processes_preprocessing=0, **keep
        ),
        "list": predictor.predict_from_files_sequential(files, outputs, save_probabilities, **keep),
        "arrays": predictor.predict_from_list_of_npy_arrays(
            *arrays, [str(tmp_path / "arrays" / name) for name in "pq"], 0, save_probabilities, **keep
        ),
    }
    assert {kind: [found.identifier for found in predictions] for kind, predictions in results.items()} == {
        "folder": ["a", "b", "c"],
        "list": ["x", "y", "z"],
        "arrays": ["p", "q"],
    }
    for kind, predictions in results.items():
        for found in predictions:
            output = tmp_path / kind / found.identifier
            np.testing.assert_array_equal(found.segmentation, labels_of(Path(f"{output}.nii.gz")))
            assert (found.probabilities is not None) == save_probabilities
            if save_probabilities:
                np.testing.assert_array_equal(found.probabilities, np.load(f"{output}.npz")["probabilities"])
    unsaved = predictor.predict_from_files_sequential(str(three_cases), None, **keep)
    assert [found.identifier for found in unsaved] == ["a", "b", "c"]
    unnamed = predictor.predict_from_list_of_npy_arrays(*arrays, None, 0, **keep)
    assert [found.identifier for found in unnamed] == ["0", "1"]
