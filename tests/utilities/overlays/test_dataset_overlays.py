from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2.errors import DataError, UsageError
from nnunetv2.preprocessing.stored_cases import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.utilities.overlay_plots import (
    entry_point_generate_overlay,
    generate_overlays_from_preprocessed,
    generate_overlays_from_raw,
)
from tests.recorded.overlay_cases import (
    CASES,
    PREPROCESSED_CALLS,
    RAW_CALLS,
    VOLUMES,
    preprocessed_arrays,
    write_plans,
    write_raw,
)

RECORDED = Path(__file__).resolve().parents[2] / "recorded" / "overlays.npz"


@pytest.fixture
def raw(nnunet_folders) -> Path:
    write_raw(nnunet_folders["nnUNet_raw"])
    return nnunet_folders["nnUNet_raw"] / VOLUMES


@pytest.fixture
def preprocessed(nnunet_folders) -> Path:
    for folder in write_plans(nnunet_folders["nnUNet_preprocessed"]).values():
        for case in CASES:
            shapes = {"chunks": (1, 4, 4, 4), "blocks": (1, 4, 4, 4)}
            nnUNetDatasetBlosc2.save_case(*preprocessed_arrays(case), {}, str(folder / case), **shapes)
    return nnunet_folders["nnUNet_preprocessed"] / VOLUMES


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.array(Image.open(path)) for path in folder.iterdir()}


def recorded(call: str) -> dict[str, np.ndarray]:
    with np.load(RECORDED) as arrays:
        return {f"{key.partition('/')[2]}.png": arrays[key] for key in arrays if key.startswith(f"{call}/")}


def require_equal(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert sorted(ours) == sorted(theirs)
    for name, picture in theirs.items():
        np.testing.assert_array_equal(ours[name], picture, err_msg=name)


@pytest.mark.oracle
@pytest.mark.parametrize("call", RAW_CALLS)
def test_pictures_of_raw_data_equal_upstreams(call, raw, tmp_path):
    dataset, options = RAW_CALLS[call]
    generate_overlays_from_raw(dataset, str(tmp_path / "out" / "deep"), 1, **options)
    require_equal(pictures(tmp_path / "out" / "deep"), recorded(call))


@pytest.mark.oracle
@pytest.mark.parametrize("call", PREPROCESSED_CALLS)
def test_pictures_of_preprocessed_data_equal_upstreams(call, preprocessed, tmp_path):
    generate_overlays_from_preprocessed(981, str(tmp_path / "out"), 1, **PREPROCESSED_CALLS[call])
    require_equal(pictures(tmp_path / "out"), recorded(call))


@pytest.mark.slow
def test_the_command_draws_both(raw, preprocessed, tmp_path):
    common = ["-d", "981", "-np", "1", "-channel_idx", "1"]
    assert entry_point_generate_overlay([*common, "-o", str(tmp_path / "raw"), "--use_raw"]) == 0
    more = ["-c", "2d", "-overlay_intensity", "0.25", "-p", "nnUNetPlans"]
    assert entry_point_generate_overlay([*common, "-o", str(tmp_path / "pre"), *more]) == 0
    require_equal(pictures(tmp_path / "raw"), recorded("raw_channel_1"))
    require_equal(pictures(tmp_path / "pre"), recorded("preprocessed_2d"))


@pytest.mark.slow
def test_cases_in_npz_files_and_inherited_configurations(preprocessed, tmp_path):
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    plans["configurations"]["mine"] = {"inherits_from": "2d", "data_identifier": "mine"}
    plans["configurations"]["same"] = {"inherits_from": "2d"}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    (preprocessed / "mine").mkdir()
    for case in CASES:
        nnUNetDatasetNumpy.save_case(*preprocessed_arrays(case), {}, str(preprocessed / "mine" / case))
    for number, configuration in enumerate(["mine", "same", "mine"]):
        folder = tmp_path / str(number)
        generate_overlays_from_preprocessed(VOLUMES, str(folder), 1, configuration=configuration)
        require_equal(pictures(folder), recorded("preprocessed"))
        nnUNetDatasetNumpy.unpack_dataset(str(preprocessed / "mine"), num_processes=1)  # for the last round


@pytest.mark.slow
def test_pictures_drawn_in_several_processes_are_the_same(raw, preprocessed, tmp_path, monkeypatch):
    monkeypatch.setattr("nnunetv2.utilities.processes.case_pool.num_available_cores", lambda: 2)
    generate_overlays_from_raw(981, str(tmp_path / "raw"), 2)
    generate_overlays_from_preprocessed(981, str(tmp_path / "pre"), 2)
    require_equal(pictures(tmp_path / "raw"), recorded("raw"))
    require_equal(pictures(tmp_path / "pre"), recorded("preprocessed"))


def test_what_is_not_there_is_named_with_the_cure(nnunet_folders, raw, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(UsageError, match="Channel 2 was asked for .*; there are 0 to 1"):
        generate_overlays_from_raw(981, out, 1, channel_idx=2)
    for draw in (generate_overlays_from_raw, generate_overlays_from_preprocessed):
        with pytest.raises(UsageError, match="The overlay intensity is 7; it must be 0 to 1"):
            draw(981, out, overlay_intensity=7)
    with pytest.raises(UsageError, match="There is no .*nnUNetPlans.json; run nnUNetv2_plan_and_preprocess"):
        generate_overlays_from_preprocessed(981, out)
    with pytest.raises(UsageError, match="no .*Dataset999_None/dataset.json; .*check -d"):
        generate_overlays_from_raw("Dataset999_None", out)
    folders = write_plans(nnunet_folders["nnUNet_preprocessed"])
    with pytest.raises(UsageError, match="3d_lowres"):
        generate_overlays_from_preprocessed(981, out, configuration="3d_lowres")
    folders["2d"].rmdir()
    with pytest.raises(UsageError, match="There is no .*nnUNetPlans_2d; run nnUNetv2_plan_and_preprocess"):
        generate_overlays_from_preprocessed(981, out, configuration="2d")
    assert not Path(out).exists()


@pytest.mark.slow
def test_a_case_that_cannot_be_drawn_is_named_and_leaves_no_file(raw, preprocessed, tmp_path):
    labels = raw / "labelsTr"
    (labels / "no_foreground.nii.gz").write_bytes(b"no image")
    with pytest.raises(DataError, match="Case no_foreground: .*no_foreground.nii.gz"):
        generate_overlays_from_raw(981, str(tmp_path / "out"), 1)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.stem.startswith("no_f")] == []
    with pytest.raises(UsageError, match="Case no_background: Channel 2 was asked for"):
        generate_overlays_from_preprocessed(981, str(tmp_path / "pre"), 1, channel_idx=2)


def test_labels_of_another_shape_are_refused(raw, tmp_path):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 12, 4), np.uint8), np.eye(4)), raw / "labelsTr/three_labels.nii.gz")
    with pytest.raises(DataError, match=r"has shape \[5, 12, 9\] and .*three_labels.nii.gz \[4, 12, 9\]"):
        generate_overlays_from_raw(981, str(tmp_path / "out"), 1)
