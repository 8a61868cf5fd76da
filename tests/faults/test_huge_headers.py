"""Rows 19, 20 and 21: headers that announce terabytes, and small files that unpack to gigabytes, are rejected."""

from __future__ import annotations

import gzip
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunetv2.errors import DataError, UsageError
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.nifti_integrity import check_nifti
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.size_limits import require_readable_size
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

BLOCK = 16 * 2**20
SLACK = 200 * 2**20  # bytes that reading a rejected file may need


def nifti_header(shape: tuple[int, ...], data_type: int = 16) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", header, 70, data_type, 32)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header)


def zeros(num_bytes: int, before: bytes = b"", *, wbits: int = 31) -> bytes:
    """Compressed zeros, about 1028:1; wbits 31: gzip, 15: zlib. One block is packed and repeated; no checksum."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(num_bytes % BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    length = (len(before) + num_bytes) % 2**32
    return start + block * (num_bytes // BLOCK) + rest + b"\3\0" + struct.pack("<II", 0, length)


def write_nifti_bomb(path: Path) -> None:
    path.write_bytes(zeros(2**31, nifti_header((1024, 1024, 512))))


def write_nrrd_bomb(path: Path) -> None:
    head = b"NRRD0004\ntype: float\ndimension: 3\nsizes: 1024 1024 512\nendian: little\nencoding: gzip\n\n"
    path.write_bytes(head + zeros(2**31))


def write_mha_bomb(path: Path) -> None:
    packed = zeros(2**31, wbits=15)
    head = "ObjectType = Image\nNDims = 3\nDimSize = 1024 1024 512\nElementType = MET_FLOAT\nCompressedData = True\n"
    path.write_bytes(f"{head}CompressedDataSize = {len(packed)}\nElementDataFile = LOCAL\n".encode() + packed)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_png_bomb(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 12000, 12000, 8, 0, 0, 0, 0)
    pixels = zeros(12001 * 12000, wbits=15)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    )


def write_tif_bomb(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((12000, 12000), np.uint8), compression="zstd")


def write_huge_nifti(path: Path) -> None:
    path.write_bytes(nifti_header((30000, 30000, 30000)))


def write_huge_nifti_gz(path: Path) -> None:
    path.write_bytes(gzip.compress(nifti_header((30000, 30000, 30000))))


def write_huge_nrrd(path: Path) -> None:
    path.write_bytes(b"NRRD0004\ntype: float\ndimension: 3\nsizes: 30000 30000 30000\nencoding: raw\n\n")


def write_huge_mha(path: Path) -> None:
    path.write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 30000 30000 30000\nElementType = MET_FLOAT\n"
        b"ElementDataFile = LOCAL\n"
    )


def write_huge_gipl(path: Path) -> None:
    path.write_bytes(struct.pack(">5H", 30000, 30000, 30000, 1, 64) + bytes(246))


def write_huge_png(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IEND", b""))


def write_huge_bmp(path: Path) -> None:
    path.write_bytes(b"BM" + struct.pack("<IHHIIiiHHI", 100, 0, 0, 54, 40, 300000, 300000, 1, 8, 0) + bytes(80))


HOSTILE = {
    "gzip bomb, SimpleITK": (SimpleITKIO, ".nii.gz", write_nifti_bomb),
    "gzip bomb, nibabel": (NibabelIO, ".nii.gz", write_nifti_bomb),
    "NRRD bomb": (SimpleITKIO, ".nrrd", write_nrrd_bomb),
    "MetaImage bomb": (SimpleITKIO, ".mha", write_mha_bomb),
    "PNG bomb": (NaturalImage2DIO, ".png", write_png_bomb),
    "TIFF bomb": (NaturalImage2DIO, ".tif", write_tif_bomb),
    "NIfTI header, SimpleITK": (SimpleITKIO, ".nii", write_huge_nifti),
    "NIfTI header, nibabel": (NibabelIO, ".nii", write_huge_nifti),
    "packed NIfTI header": (SimpleITKIO, ".nii.gz", write_huge_nifti_gz),
    "NRRD header": (SimpleITKIO, ".nrrd", write_huge_nrrd),
    "MetaImage header": (SimpleITKIO, ".mha", write_huge_mha),
    "GIPL header": (SimpleITKIO, ".gipl", write_huge_gipl),
    "PNG header": (NaturalImage2DIO, ".png", write_huge_png),
    "BMP header": (NaturalImage2DIO, ".bmp", write_huge_bmp),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_is_rejected_before_memory_is_taken(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, ending, write = HOSTILE[name]
    path = tmp_path / f"case_0000{ending}"
    write(path)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SLACK, limit[1]))
    try:
        for read in (lambda: reader().read_images([str(path)]), lambda: reader().read_seg(str(path))):
            with pytest.raises(DataError, match=r"case_0000.*set nnUNet_max_voxels=\d+$"):
                read()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


def test_content_longer_than_announced_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "case_0000.nii.gz"
    path.write_bytes(zeros(2**31, nifti_header((10, 10, 10))))
    for reader in (SimpleITKIO, NibabelIO):
        with pytest.raises(DataError, match="case_0000.nii.gz is damaged: it unpacks to more than twice"):
            reader().read_images([str(path)])


@pytest.mark.parametrize(
    ("shape", "unpacked", "packed", "is_accepted"),
    [
        ((512, 512, 800), 512 * 512 * 800, 512 * 512 * 800 // 1029, True),  # an empty label map of a CT
        ((512, 512, 2000), 512 * 512 * 4000, 512 * 512 * 4000 // 920, True),  # int16, one organ
        ((1600, 1250, 2000), 4 * 10**9, 4 * 10**9, True),
        ((1600, 1250, 2001), 4 * 10**9, 4 * 10**9, False),
        ((1024, 1024, 512), 2**31, 2**31 // 1029, False),
    ],
)
def test_limits(
    shape: tuple[int, ...], unpacked: int, packed: int, is_accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_max_voxels", raising=False)
    if is_accepted:
        require_readable_size("a", shape, unpacked=unpacked, packed=packed)
        return
    with pytest.raises(DataError, match=r"a .*set nnUNet_max_voxels=(\d+)$") as caught:
        require_readable_size("a", shape, unpacked=unpacked, packed=packed)
    monkeypatch.setenv("nnUNet_max_voxels", str(caught.value).rpartition("=")[2])
    require_readable_size("a", shape, unpacked=unpacked, packed=packed)


def test_variable_sets_a_lower_limit_and_must_be_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_max_voxels", "1e3")
    require_readable_size("a", (10, 10, 10), unpacked=1000, packed=1000)
    with pytest.raises(DataError, match=r"announces 1100 voxels .* more than the 1000"):
        require_readable_size("a", (10, 10, 11), unpacked=1100, packed=1100)
    monkeypatch.setenv("nnUNet_max_voxels", "many")
    with pytest.raises(UsageError, match="nnUNet_max_voxels is 'many'"):
        require_readable_size("a", (1,), unpacked=1, packed=1)


def test_empty_label_map_of_a_ct_is_read(tmp_path: Path) -> None:
    path = tmp_path / "case.nii.gz"
    path.write_bytes(zeros(200 * 2**20, nifti_header((512, 512, 800), 2)))
    assert path.stat().st_size * 1000 < 512 * 512 * 800
    assert check_nifti(path).shape == (512, 512, 800)


@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO])
@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan")])
def test_impossible_spacing_of_nifti_is_named(tmp_path: Path, reader: type[BaseReaderWriter], spacing: float) -> None:
    header = bytearray(nifti_header((4, 5, 6), 2))
    struct.pack_into("<f", header, 84, spacing)
    (tmp_path / "case_0000.nii").write_bytes(bytes(header) + bytes(120))
    with pytest.raises(DataError, match="case_0000.nii has the voxel spacing .* must be above 0"):
        reader().read_images([str(tmp_path / "case_0000.nii")])


@pytest.mark.parametrize("spacing", ["0", "-1"])
@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_impossible_spacing_in_a_text_header_is_named(tmp_path: Path, ending: str, spacing: str) -> None:
    path = tmp_path / f"case_0000{ending}"
    image = sitk.GetImageFromArray(np.zeros((6, 5, 4), np.uint8))
    image.SetSpacing((7, 7, 7))
    sitk.WriteImage(image, str(path))
    content = path.read_bytes()
    if ending == ".mha":
        content = content.replace(b"ElementSpacing = 7 7 7", f"ElementSpacing = 7 {spacing} 7".encode())
    else:
        content = content.replace(b"space directions: (7,0,0) (0,7,0) (0,0,7)", f"spacings: 7 {spacing} 7".encode())
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"case_0000{ending} has the voxel spacing .* must be above 0"):
        SimpleITKIO().read_images([str(path)])


def test_stack_of_pages_is_limited_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "case_0000.tif", np.zeros((5, 10, 10), np.uint8))
    monkeypatch.setenv("nnUNet_max_voxels", "499")
    with pytest.raises(DataError, match="announces 500 voxels"):
        Tiff3DIO().read_images([str(tmp_path / "case_0000.tif")])
