"""Output paths given by callers: with or without file ending, and refused before the computation if unwritable."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nnunetv2.errors import UsageError

_LONGEST_NAME = 255  # bytes, on all common file systems
_NIFTI = (".nii.gz", ".nii")


def without_ending(output: str | os.PathLike, file_ending: str) -> str:
    """Removes the file ending from an output path, if it has one.

    Outputs are paths without ending. Upstream's documentation once showed them with ending, and with SimpleITK
    `case.nii.gz` and `case.nii` both become the file `case.nii.gz` there.
    """
    path = os.fspath(output)
    endings = _NIFTI if file_ending in _NIFTI else (file_ending,)
    return next((path[: -len(ending)] for ending in endings if path.endswith(ending)), path)


def prepare_outputs(outputs: Sequence[str | os.PathLike | None], file_ending: str) -> list[str | None]:
    """Removes file endings, rejects unwritable paths, and creates the folders.

    Args:
        outputs: path for each case, or None to return its segmentation.

    Raises:
        UsageError: a path cannot be written, or two cases have the same one.
    """
    paths = [None if output is None else without_ending(output, file_ending) for output in outputs]
    seen: dict[str, int] = {}
    for number, path in enumerate(paths):
        if path is None:
            continue
        require_writable(path, file_ending)
        other = seen.setdefault(os.path.abspath(path), number)
        if other != number:
            raise UsageError(
                f"The outputs {outputs[other]} and {outputs[number]} are the same file; give each case its own"
            )
    return paths


def require_writable(output: str, file_ending: str) -> None:
    """Creates the folder of an output and checks that the segmentation can be written there.

    Args:
        output: path of the segmentation without ending.

    Raises:
        UsageError: the reason why not.
    """
    file = output + file_ending
    reason = _problem_with_name(os.path.basename(output), file_ending)
    if reason is None:
        folder = os.path.dirname(output) or os.path.curdir
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as err:
            reason = f"its folder cannot be created ({err.strerror})"
        else:
            reason = _problem_with_place(folder, file)
    if reason is not None:
        shown = repr(file) if len(file) <= 120 else f"{file[:117]!r}..."
        raise UsageError(f"The output {shown} cannot be written: {reason}")


def _problem_with_name(name: str, file_ending: str) -> str | None:
    if not name.strip("."):
        return "it has no file name; give FOLDER/NAME, without ending"
    if "\0" in name:
        return "its name contains a null character"
    try:
        num_bytes = len(os.fsencode(name + file_ending))
    except UnicodeEncodeError:
        return "its name has characters that this system's file names cannot hold"
    if num_bytes > _LONGEST_NAME:
        return f"its name has {num_bytes} bytes, and file systems allow {_LONGEST_NAME}; give a shorter one"
    return None


def _problem_with_place(folder: str, file: str) -> str | None:
    if os.path.isdir(file):
        return "it is a folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} is not writable; change its permissions, or give another folder"
    return None
