"""Preprocessed cases on disk, written by preprocessing and read by training.

A case consists of `CASE.b2nd` (image, float32, `(C, X, Y, Z)`), `CASE_seg.b2nd` (labels, int16, `(1, X, Y, Z)`) and
`CASE.pkl` (properties). The .b2nd files are compressed in chunks, so that a patch can be read without the rest. Older
folders contain `CASE.npz` with both arrays instead, which training unpacks to .npy before it starts.

Files are written under a temporary name and renamed, the image last, so that every listed case is complete.
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.visible_files import visible_files
from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import DataError
from nnunetv2.preprocessing.b2nd_files import PREPROCESS_IT, damaged, open_b2nd, verify_b2nd, write_b2nd
from nnunetv2.preprocessing.chunk_shapes import comp_blosc2_params
from nnunetv2.preprocessing.npz_unpacking import unpack_dataset
from nnunetv2.preprocessing.recently_read import RecentlyRead
from nnunetv2.utilities.plans_handling.plans_files import command_that_makes
from nnunetv2.utilities.restricted_pickle import load_restricted, save_pickle

__all__ = [
    "comp_blosc2_params",
    "file_ending_dataset_mapping",
    "infer_dataset_class",
    "nnUNetBaseDataset",
    "nnUNetDatasetBlosc2",
    "nnUNetDatasetNumpy",
    "unpack_dataset",
]

logger = logging.getLogger(__name__)

CompressedArray = blosc2.NDArray | np.ndarray
Case = tuple[CompressedArray, CompressedArray, CompressedArray | None, dict]
_PREDICT_IT = "run the validation (--val) of the previous stage's fold that has this case"
_VERIFY = "nnUNet_verify_stored_cases"
_FALLBACK_PATCH = (128, 128, 128)  # assumed if the caller gives no patch size
_REMEMBERED_PROPERTIES = 2**26  # bytes on disk, per process
_MOST_OPEN_ARRAYS = 256
_SHARE_OF_OPEN_FILES = 8  # arrays may hold 1/8 of the files that a process may open


class nnUNetBaseDataset(ABC):  # noqa: N801 - upstream's name
    """A folder of preprocessed cases.

    Args:
        folder: the folder.
        identifiers: the cases to use; None: all in the folder.
        folder_with_segs_from_previous_stage: predictions of the previous cascade stage, same format, optional.
    """

    def __init__(
        self,
        folder: str,
        identifiers: Sequence[str] | None = None,
        folder_with_segs_from_previous_stage: str | None = None,
    ) -> None:
        self.source_folder = folder
        self.folder_with_segs_from_previous_stage = folder_with_segs_from_previous_stage
        self.identifiers = sorted(self.get_identifiers(folder) if identifiers is None else identifiers)
        self._properties = RecentlyRead(_REMEMBERED_PROPERTIES, _num_bytes)

    def __getitem__(self, identifier: str) -> Case:
        return self.load_case(identifier)

    @abstractmethod
    def load_case(self, identifier: str) -> Case:
        """Returns `(image, labels, labels of the previous stage or None, properties)`; slicing an array reads it.

        Raises:
            DataError: a file of the case is missing or damaged.
        """

    @staticmethod
    @abstractmethod
    def save_case(data: np.ndarray, seg: np.ndarray, properties: dict, output_filename_truncated: str) -> None:
        """Writes a case; `output_filename_truncated` is the path up to and including the identifier."""

    @staticmethod
    @abstractmethod
    def get_identifiers(folder: str) -> list[str]:
        """Lists the cases in a folder."""

    @staticmethod
    def unpack_dataset(
        folder: str, overwrite_existing: bool = False, num_processes: int | None = None, verify: bool = True
    ) -> None:
        """Prepares the folder for fast reading; does nothing for formats that need no unpacking."""
        return

    def _load_properties(self, identifier: str) -> dict:
        path = os.path.join(self.source_folder, f"{identifier}.pkl")
        # A copy, so that callers may add to it.
        return dict(self._properties.get(path, partial(_read, load_restricted)))


class nnUNetDatasetNumpy(nnUNetBaseDataset):  # noqa: N801 - upstream's name
    """Cases in .npz files, read from the unpacked .npy files if present."""

    def load_case(self, identifier: str) -> Case:
        packed = os.path.join(self.source_folder, identifier)
        data = _read_npy_or_npz(f"{packed}.npy", f"{packed}.npz", "data")
        seg = _read_npy_or_npz(f"{packed}_seg.npy", f"{packed}.npz", "seg")
        seg_prev = None
        if self.folder_with_segs_from_previous_stage is not None:
            previous = os.path.join(self.folder_with_segs_from_previous_stage, identifier)
            seg_prev = _read_npy_or_npz(f"{previous}.npy", f"{previous}.npz", "seg", _PREDICT_IT)
        return data, seg, seg_prev, self._load_properties(identifier)

    @staticmethod
    def save_case(data: np.ndarray, seg: np.ndarray, properties: dict, output_filename_truncated: str) -> None:
        save_pickle(properties, f"{output_filename_truncated}.pkl")
        with replace_when_complete(f"{output_filename_truncated}.npz") as temporary:
            np.savez_compressed(temporary, data=data, seg=seg)

    @staticmethod
    def save_seg(seg: np.ndarray, output_filename_truncated: str) -> None:
        """Writes only a label map, as input of the next cascade stage."""
        with replace_when_complete(f"{output_filename_truncated}.npz") as temporary:
            np.savez_compressed(temporary, seg=seg)

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        return [path.stem for path in _files_of_cases(folder, ".npz")]

    @staticmethod
    def unpack_dataset(
        folder: str, overwrite_existing: bool = False, num_processes: int | None = None, verify: bool = True
    ) -> None:
        """Writes .npy files next to the .npz files."""
        unpack_dataset(folder, True, overwrite_existing, num_processes, verify)


class nnUNetDatasetBlosc2(nnUNetBaseDataset):  # noqa: N801 - upstream's name
    """Cases in .b2nd files; training decompresses only the chunks that a patch touches."""

    def __init__(
        self,
        folder: str,
        identifiers: Sequence[str] | None = None,
        folder_with_segs_from_previous_stage: str | None = None,
    ) -> None:
        super().__init__(folder, identifiers, folder_with_segs_from_previous_stage)
        blosc2.set_nthreads(1)  # many loader processes read concurrently; threads inside each would only compete
        # Windows cannot delete or replace files that are memory mapped.
        self.mmap_kwargs = {} if os.name == "nt" else {"mmap_mode": "r"}
        self._arrays = RecentlyRead(_num_open_arrays() if self.mmap_kwargs else 0, _one)

    def load_case(self, identifier: str) -> Case:
        stored = os.path.join(self.source_folder, identifier)
        data, seg = (self._arrays.get(f"{stored}{part}.b2nd", self._open) for part in ("", "_seg"))
        seg_prev = None
        if self.folder_with_segs_from_previous_stage is not None:
            previous = os.path.join(self.folder_with_segs_from_previous_stage, f"{identifier}.b2nd")
            seg_prev = self._arrays.get(previous, partial(self._open, remedy=_PREDICT_IT))
        return data, seg, seg_prev, self._load_properties(identifier)

    def _open(self, path: str, remedy: str = PREPROCESS_IT) -> blosc2.NDArray:
        array = _read(partial(open_b2nd, dparams={"nthreads": 1}, **self.mmap_kwargs), path, remedy)
        if remedy != PREPROCESS_IT:
            array.remedy = remedy
        return array

    @staticmethod
    def unpack_dataset(
        folder: str, overwrite_existing: bool = False, num_processes: int | None = None, verify: bool = True
    ) -> None:
        """Unpacks nothing; with `verify`, reads all files once and compares their checksums.

        The environment variable `nnUNet_verify_stored_cases=0` skips this, for folders that take long to read.

        Raises:
            DataError: a file is damaged; the message names it.
        """
        if not verify or os.environ.get(_VERIFY, "1") == "0":
            return
        cases = nnUNetDatasetBlosc2(folder)
        paths = [f"{os.path.join(folder, case)}{part}.b2nd" for case in cases.identifiers for part in ("", "_seg")]
        with ThreadPoolExecutor(max(1, num_processes or get_default_num_processes())) as threads:
            deque(threads.map(lambda path: verify_b2nd(path, cases._open), paths), maxlen=0)

    @staticmethod
    def _select_filter(
        arr: np.ndarray, blocks: Sequence[int], chunks: Sequence[int], codec: blosc2.Codec, clevel: int
    ) -> blosc2.Filter:
        """Compresses one chunk from the middle of the array with and without byte shuffling and selects the smaller.

        Shuffling helps for interpolated values and hurts for the few distinct values of images that were not resampled;
        no property of the array predicts which case applies. Ties go to no filter.
        """
        sizes = [min(int(chunk), length) for chunk, length in zip(chunks, arr.shape, strict=True)]
        starts = [(length - size) // 2 for size, length in zip(sizes, arr.shape, strict=True)]
        sample = np.ascontiguousarray(arr[tuple(slice(a, a + size) for a, size in zip(starts, sizes, strict=True))])
        sample_blocks = tuple(max(1, min(int(block), size)) for block, size in zip(blocks, sizes, strict=True))

        def compressed_bytes(candidate: blosc2.Filter) -> int:
            cparams = _compression(codec, clevel, [candidate])
            return blosc2.asarray(sample, chunks=tuple(sizes), blocks=sample_blocks, cparams=cparams).schunk.cbytes

        return min((blosc2.Filter.NOFILTER, blosc2.Filter.SHUFFLE), key=compressed_bytes)

    @staticmethod
    def save_case(
        data: np.ndarray,
        seg: np.ndarray,
        properties: dict[str, Any],
        output_filename_truncated: str,
        chunks: Sequence[int] | None = None,
        blocks: Sequence[int] | None = None,
        chunks_seg: Sequence[int] | None = None,
        blocks_seg: Sequence[int] | None = None,
        clevel: int = 5,
        codec: blosc2.Codec = blosc2.Codec.LZ4HC,
        filters: Sequence[blosc2.Filter] | None = None,
        filters_seg: Sequence[blosc2.Filter] | None = None,
    ) -> None:
        """Writes a case.

        Args:
            data: image, `(C, X, Y, Z)`.
            seg: labels, `(1, X, Y, Z)`.
            properties: stored as a pickle.
            output_filename_truncated: path up to and including the identifier.
            chunks: chunk shape of the image, from `comp_blosc2_params` with the patch size of the configuration.
            blocks: block shape of the image.
            chunks_seg: chunk shape of the labels; by default that of the image.
            blocks_seg: block shape of the labels; by default that of the image.
            clevel: compression level, 0 to 9.
            codec: compression method.
            filters: filters for the image; by default selected by trial compression.
            filters_seg: filters for the labels; the same default.
        """
        if chunks is None or blocks is None:
            blocks, chunks = comp_blosc2_params(data.shape, _FALLBACK_PATCH)
            logger.warning(
                "%s: no chunk and block shape was given, so they are made for patches of %s voxels; other patches will "
                "be read slowly. Pass chunks and blocks from comp_blosc2_params.",
                output_filename_truncated,
                "x".join(map(str, _FALLBACK_PATCH)),
            )
        chunks_seg = chunks if chunks_seg is None else chunks_seg
        blocks_seg = blocks if blocks_seg is None else blocks_seg
        blosc2.set_nthreads(1)
        select = nnUNetDatasetBlosc2._select_filter
        filters = filters or [select(data, blocks, chunks, codec, clevel)]
        filters_seg = filters_seg or [select(seg, blocks_seg, chunks_seg, codec, clevel)]
        save_pickle(properties, f"{output_filename_truncated}.pkl")
        write_b2nd(
            seg,
            f"{output_filename_truncated}_seg.b2nd",
            chunks=chunks_seg,
            blocks=blocks_seg,
            cparams=_compression(codec, clevel, filters_seg),
        )
        write_b2nd(
            data,
            f"{output_filename_truncated}.b2nd",
            chunks=chunks,
            blocks=blocks,
            cparams=_compression(codec, clevel, filters),
        )

    @staticmethod
    def save_seg(
        seg: np.ndarray,
        output_filename_truncated: str,
        chunks_seg: Sequence[int] | None = None,
        blocks_seg: Sequence[int] | None = None,
    ) -> None:
        """Writes only a label map, as input of the next cascade stage, in place of an older one."""
        blosc2.set_nthreads(1)
        write_b2nd(seg, f"{output_filename_truncated}.b2nd", chunks=chunks_seg, blocks=blocks_seg)

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        paths = _files_of_cases(folder, ".b2nd")
        return [path.stem for path in paths if not path.name.endswith("_seg.b2nd")]


file_ending_dataset_mapping: dict[str, type[nnUNetBaseDataset]] = {
    "npz": nnUNetDatasetNumpy,
    "b2nd": nnUNetDatasetBlosc2,
}


def infer_dataset_class(folder: str) -> type[nnUNetDatasetBlosc2] | type[nnUNetDatasetNumpy]:
    """Detects the format of a folder of cases by the endings of its files.

    Raises:
        DataError: the folder is missing, has no cases or mixes formats.
    """
    endings = {path.suffix[1:] for path in _files_of_cases(folder)} - {"pkl", "npy"}
    if len(endings) == 1 and endings <= set(file_ending_dataset_mapping):
        return file_ending_dataset_mapping[endings.pop()]
    raise DataError(
        f"{folder} has files ending in {', '.join(sorted(endings)) or 'nothing'}; a folder of preprocessed cases holds "
        f"either .b2nd or .npz files beside the .pkl files; make them again with: {command_that_makes(folder)}"
    )


def _num_bytes(state: os.stat_result) -> int:
    return state.st_size


def _num_open_arrays() -> int:
    import resource  # absent on Windows

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _MOST_OPEN_ARRAYS
    return min(_MOST_OPEN_ARRAYS, allowed // _SHARE_OF_OPEN_FILES)


def _one(state: os.stat_result) -> int:
    return 1


def _files_of_cases(folder: str, ending: str = "") -> list[Path]:
    if not os.path.isdir(folder):
        raise DataError(f"There is no folder {folder}; make it with: {command_that_makes(folder)}")
    return visible_files(folder, ending)


def _compression(codec: blosc2.Codec, clevel: int, filters: Sequence[blosc2.Filter]) -> dict[str, Any]:
    return {"codec": codec, "clevel": clevel, "filters": list(filters), "nthreads": 1}


def _read_npy_or_npz(unpacked: str, packed: str, key: str, remedy: str = PREPROCESS_IT) -> np.ndarray:
    if os.path.isfile(unpacked):
        return _read(partial(np.load, mmap_mode="r", allow_pickle=False), unpacked, remedy)
    return _read(lambda path: np.load(path, allow_pickle=False)[key], packed, remedy)


def _read(reader: Callable[[str], Any], path: str, remedy: str = PREPROCESS_IT) -> Any:
    """Calls `reader(path)` and converts any exception from a damaged file to an error that names the file."""
    if not os.path.isfile(path):
        raise DataError(f"There is no file {path}; {remedy}")
    try:
        return reader(path)
    except Exception as err:  # each library raises its own exceptions for damaged files
        raise damaged(path, err, remedy) from err
