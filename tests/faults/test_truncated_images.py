"""Row 10: images and label maps that are cut off are rejected by everything that reads them, whole ones never."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunetv2.errors import DataError
from nnunetv2.evaluation.evaluate_entry_points import evaluate_simple_entry_point
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import extract_fingerprint_entry, preprocess_entry
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from tests.faults.conftest import one_line
from tests.faults.images import FORMATS, arrays, write_sample
from tests.faults.injection import times, truncate
from tests.faults.volumes import NUMBER

FRACTIONS = [0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]
LAST_BYTES = [9, 4, 1]  # a checksum, a length, an end mark


@pytest.mark.parametrize("is_label", [False, True], ids=["image", "label"])
@pytest.mark.parametrize("name", FORMATS)
def test_truncated_file_is_rejected(tmp_path: Path, name: str, is_label: bool) -> None:
    sample = write_sample(tmp_path, name, is_label)
    whole = sample.voxels.read_bytes()
    before = sample.read()
    for length in [int(len(whole) * fraction) for fraction in FRACTIONS] + [len(whole) - n for n in LAST_BYTES]:
        sample.voxels.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"case.*\.") as caught:
            sample.read()
        assert "\n" not in str(caught.value)
    sample.voxels.write_bytes(whole)
    np.testing.assert_array_equal(sample.read(), before)


@pytest.mark.parametrize("fraction", [0.3, 0.95][: times(1, 2)])
@pytest.mark.parametrize("part", ["imagesTr/case_b_0000.nii.gz", "labelsTr/case_b.nii.gz"])
def test_verification_and_preprocessing_reject_it(
    raw_volumes: Path, preprocessed_copy: Path, run: Callable[..., tuple[int, str]], part: str, fraction: float
) -> None:
    truncate(raw_volumes / part, fraction)
    for entry, words in (
        (extract_fingerprint_entry, ["-d", NUMBER, "-np", "1", "--verify_dataset_integrity"]),
        (preprocess_entry, ["-d", NUMBER, "-c", "3d_fullres", "-np", "1"]),
    ):
        code, stderr = run(entry, *words)
        assert code == 3
        one_line(stderr, Path(part).name)


@pytest.fixture
def preprocessed_copy(preprocessed_volumes: Path) -> Path:
    """Plans for `raw_volumes`, which is written into the same folders."""
    return preprocessed_volumes


@pytest.fixture
def raw_volumes(preprocessed_volumes: Path, nnunet_folders: dict[str, Path]) -> Path:
    return nnunet_folders["nnUNet_raw"] / preprocessed_volumes.name


@pytest.mark.parametrize("folder", ["reference", "prediction"])
@pytest.mark.parametrize("name", ["nii.gz SimpleITK", "nrrd gzip", "mha zlib", "png", "tif stack"])
def test_evaluation_rejects_it(tmp_path: Path, run: Callable[..., tuple[int, str]], name: str, folder: str) -> None:
    for each in ("reference", "prediction"):
        (tmp_path / each).mkdir()
        sample = write_sample(tmp_path / each, name, is_label=True)
    damaged = tmp_path / folder / sample.path.name
    damaged.write_bytes(damaged.read_bytes()[:-2])
    code, stderr = run(evaluate_simple_entry_point, tmp_path / "reference", tmp_path / "prediction", "-l", "1", "2")
    assert code == 3
    one_line(stderr, str(damaged))


def test_files_of_other_programs_raise_no_alarm(tmp_path: Path) -> None:
    volume = arrays(is_label=True)
    pages = [Image.fromarray(page) for page in volume]
    for number, compression in enumerate((None, "tiff_lzw", "tiff_adobe_deflate")):
        path = tmp_path / f"pillow{number}_0000.tif"
        pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(tmp_path / "itk_0000.tif"))
    tifffile.imwrite(tmp_path / "imagej_0000.tif", volume, imagej=True)
    tifffile.imwrite(tmp_path / "ome_0000.ome.tif", volume)
    tifffile.imwrite(tmp_path / "tiles_0000.tif", volume, tile=(16, 16), compression="lzw", byteorder=">")
    tifffile.imwrite(tmp_path / "big_0000.tif", volume, bigtiff=True, metadata=None)
    with tifffile.TiffWriter(tmp_path / "strips_0000.tif") as file:
        for page in volume:
            file.write(page, contiguous=False, rowsperstrip=5, metadata=None)
    paths = sorted(tmp_path.glob("*.tif"))
    assert len(paths) == 9
    for path in paths:
        np.testing.assert_array_equal(Tiff3DIO().read_images([str(path)])[0][0], volume, err_msg=path.name)


def test_whole_files_raise_no_alarm(tmp_path: Path) -> None:
    """Several gzip members, an empty label map, swapped bytes, scaled values, many types."""
    generator = np.random.default_rng(0)
    path = tmp_path / "case_0000.nii.gz"
    for number in range(times(20, 200)):
        kind = [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64][number % 6]
        array = (generator.normal(100, 30, generator.integers(2, 20, 3)) * (number % 5 > 0)).astype(kind)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path), True)
        if number % 4 == 0:
            content = gzip.decompress(path.read_bytes())
            step = max(len(content) // int(generator.integers(1, 5)), 1)
            path.write_bytes(b"".join(gzip.compress(content[i : i + step]) for i in range(0, len(content), step)))
        np.testing.assert_array_equal(SimpleITKIO().read_images([str(path)])[0][0], array.astype(np.float32))
