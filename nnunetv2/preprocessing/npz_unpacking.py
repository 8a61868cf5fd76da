"""Unpacks stored cases of the older .npz format, so that training can map them into memory."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from dinov3.utils.atomic_files import replace_when_complete
from dinov3.utils.processes.process_end import become_worker
from dinov3.utils.visible_files import visible_files
from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import DataError


def unpack_dataset(
    folder: str,
    unpack_segmentation: bool = True,
    overwrite_existing: bool = False,
    num_processes: int | None = None,
    verify: bool = False,
) -> None:
    """Writes `CASE.npy` and `CASE_seg.npy` for every `CASE.npz` of a folder.

    Args:
        folder: the folder of stored cases.
        unpack_segmentation: write `CASE_seg.npy` as well.
        overwrite_existing: rewrite existing files.
        num_processes: worker processes, by default `nnUNet_def_n_proc`; 1: use this process.
        verify: open existing .npy files and rewrite those that cannot be opened.

    Raises:
        DataError: a .npz file is damaged.
    """
    archives = visible_files(folder, ".npz")
    unpack = partial(
        _unpack, unpack_segmentation=unpack_segmentation, overwrite_existing=overwrite_existing, verify=verify
    )
    num_processes = min(num_processes or get_default_num_processes(), len(archives))
    if num_processes <= 1:
        for archive in archives:
            unpack(archive)
        return
    with ProcessPoolExecutor(num_processes, get_context("spawn"), initializer=become_worker) as workers:
        list(workers.map(unpack, archives))


def _unpack(archive: Path, unpack_segmentation: bool, overwrite_existing: bool, verify: bool) -> None:
    targets = {"data": archive.with_suffix(".npy")}
    if unpack_segmentation:
        targets["seg"] = archive.with_name(f"{archive.stem}_seg.npy")
    missing = {key: path for key, path in targets.items() if overwrite_existing or not _is_usable(path, verify)}
    if not missing:
        return
    try:
        with np.load(archive, allow_pickle=False) as content:
            for key, path in missing.items():
                with replace_when_complete(path) as temporary:
                    np.save(temporary, content[key])
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as err:
        raise DataError(f"{archive} cannot be read; run nnUNetv2_preprocess for this case again ({err})") from err


def _is_usable(path: Path, verify: bool) -> bool:
    if not path.is_file() or os.path.getsize(path) == 0:
        return False
    if not verify:
        return True
    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return False
    return True
