"""Fields of view: one mask per case; what lies outside of it is not evaluated."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nnunetv2.errors import DataError
from nnunetv2.imageio.checked_reading import read_seg

_SHOWN = 5  # cases named in an error message


def field_files(folder: str | os.PathLike, cases: Iterable[str]) -> dict[str, Path]:
    """Find the field of view of each case: a file of its name, with any ending that a reader knows.

    Raises:
        DataError: the folder does not exist, or a case has no file, or several.
    """
    from nnunetv2.imageio.reader_writer_registry import known_file_endings

    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"The folder of the fields of view (-fov) is {folder}, which does not exist")
    endings = known_file_endings()
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    by_case: dict[str, list[Path]] = {}
    for path in files:
        for case in {path.name[: -len(ending)] for ending in endings if path.name.lower().endswith(ending)}:
            by_case.setdefault(case, []).append(path)
    wanted = list(cases)
    if missing := [case for case in wanted if case not in by_case]:
        some = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise DataError(
            f"{folder} (-fov) has no field of view for {len(missing)} of {len(wanted)} cases: {some}; each case needs "
            f"a mask of its name, with one of the endings {', '.join(endings)}"
        )
    for case in wanted:
        if len(by_case[case]) > 1:
            names = " and ".join(path.name for path in by_case[case])
            raise DataError(f"{folder} (-fov) has several fields of view for {case}: {names}; keep one of them")
    return {case: by_case[case][0] for case in wanted}


def read_field(path: str | os.PathLike, shape: tuple[int, ...]) -> np.ndarray:
    """Read a field of view: boolean (Z, Y, X), True where the file is not 0.

    Raises:
        DataError: the file cannot be read, has another shape than the segmentation, or is 0 everywhere.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending, known_file_endings

    ending = max((each for each in known_file_endings() if str(path).lower().endswith(each)), key=len)
    reader = determine_reader_writer_from_file_ending(ending, [str(path)], verbose=False)()
    is_inside = read_seg(reader, str(path))[0][0] != 0
    if is_inside.shape != tuple(shape):
        raise DataError(f"The field of view {path} has shape {is_inside.shape} against {tuple(shape)} voxels")
    if not is_inside.any():
        raise DataError(f"The field of view {path} is 0 everywhere; mark what is to be evaluated with another value")
    return is_inside
