"""Row 11: flipped bits in compressed images are found by their checksums, with every reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunetv2.errors import DataError
from tests.faults.images import FORMATS, write_sample
from tests.faults.injection import flip_bit, times

FLIPS = times(20, 200)


@pytest.mark.parametrize("name", [name for name, (_, _, is_compressed, _) in FORMATS.items() if is_compressed])
def test_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    """Only what cannot change the voxels may change without notice, such as the time in a gzip header."""
    sample = write_sample(tmp_path, name, is_label=False)
    whole, before = sample.voxels.read_bytes(), sample.read()
    generator = np.random.default_rng(0)
    unnoticed = []
    for _ in range(FLIPS):
        position = flip_bit(sample.voxels, generator)
        try:
            after = sample.read()
        except DataError as err:
            assert "case" in str(err)
            assert "\n" not in str(err)
        else:
            np.testing.assert_array_equal(after, before, err_msg=f"byte {position}")
            unnoticed.append(position)
        sample.voxels.write_bytes(whole)
    if name.startswith("nii.gz"):
        assert len(unnoticed) <= FLIPS // 50


def test_scaled_and_swapped_voxels_are_checked_as_well(tmp_path: Path) -> None:
    """Their bytes differ from what libraries return, so that the checksum needs the file itself."""
    import nibabel

    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    array = np.random.default_rng(0).integers(-50, 50, (20, 20, 10))
    swapped = nibabel.Nifti1Image(array.astype(">i2"), np.eye(4), nibabel.Nifti1Header(endianness=">"))
    scaled = nibabel.Nifti1Image(array.astype(np.float32) / 7, np.eye(4))
    scaled.header.set_data_dtype(np.int16)
    for name, image in (("swapped", swapped), ("scaled", scaled)):
        path = tmp_path / f"{name}_0000.nii.gz"
        nibabel.save(image, path)
        whole = path.read_bytes()
        for reader in (SimpleITKIO, NibabelIO):
            np.testing.assert_allclose(
                reader().read_images([str(path)])[0][0], np.asarray(image.dataobj).T, rtol=1e-3, atol=1e-3
            )
            damaged = bytearray(whole)
            damaged[len(whole) // 2] ^= 4
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=name):
                reader().read_images([str(path)])
            path.write_bytes(whole)
