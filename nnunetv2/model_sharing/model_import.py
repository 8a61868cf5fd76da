"""Install trained models from a zip file: validate first, then install completely or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from nnunetv2.errors import DataError, UsageError
from nnunetv2.model_sharing.archive_members import members_of_models, model_folders, unit_of
from nnunetv2.paths import nnUNet_results

logger = logging.getLogger(__name__)

_SHOWN_FILES = 3
_CHUNK = 2**20  # bytes
Members = Mapping[PurePosixPath, zipfile.ZipInfo]


def install_model_from_zip_file(zip_file: str | os.PathLike, overwrite: bool = False) -> None:
    """Unpack trained models, exported by this fork or by upstream, into the `nnUNet_results` folder.

    All files are first unpacked and validated in a temporary folder. A model that is already installed with the same
    files is kept and only receives missing ones.

    Args:
        overwrite: replace installed models that have other files, each folder as a whole.

    Raises:
        UsageError: `nnUNet_results` is not set, the file does not exist, or a model is already installed.
        DataError: the archive is damaged, or holds something other than trained models; nothing is installed.
    """
    root = Path(nnUNet_results.require())
    if not Path(zip_file).is_file():
        raise UsageError(f"There is no file {os.fspath(zip_file)}; give a zip file that holds a trained model")
    root.mkdir(parents=True, exist_ok=True)
    with _opened(zip_file) as archive, tempfile.TemporaryDirectory(prefix=".installing_", dir=root) as scratch:
        size, free = os.path.getsize(zip_file), shutil.disk_usage(root).free
        members = members_of_models(archive, size, free)
        conflicts = _conflicts(members, root)
        if not overwrite:
            # files of the whole dataset do not belong to a model, so a conflict among them blocks no installation
            _require_no_models_among([path for path in conflicts if path != unit_of(path)], root)
        replaced = {unit_of(path) for path in conflicts} if overwrite else set()
        wanted = {
            path: info
            for path, info in members.items()
            if unit_of(path) in replaced or not os.path.lexists(root / path)
        }
        for unit in sorted({unit_of(path) for path in conflicts}):
            logger.warning("Replacing %s" if overwrite else "Keeping %s, which the archive has too", root / unit)
        unpacked = Path(scratch, "new")
        _extract(archive, wanted, unpacked)
        _check(wanted, unpacked)
        _put_in_place(wanted, unpacked, root, Path(scratch, "old"), replaced)
    for folder in model_folders(members):
        is_new = any(unit_of(path) == folder for path in wanted)
        logger.info("Installed %s" if is_new else "%s is there already, with the same files", root / folder)


@contextmanager
def _opened(zip_file: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(zip_file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as err:
        raise DataError(
            f"{os.fspath(zip_file)} is not a zip file, or a damaged one ({err}); get it again. Nothing was installed"
        ) from err


def _conflicts(members: Members, root: Path) -> list[PurePosixPath]:
    """Files that already exist with other content."""
    return [path for path, info in members.items() if os.path.lexists(root / path) and not _equal(root / path, info)]


def _require_no_models_among(conflicts: Sequence[PurePosixPath], root: Path) -> None:
    others = len(conflicts) - _SHOWN_FILES
    if conflicts:
        shown = ", ".join(map(str, conflicts[:_SHOWN_FILES])) + (f" and {others} more" if others > 0 else "")
        raise UsageError(
            f"{root} has other files already where the archive has {shown}; move them away, or replace the models with "
            f"those of the archive (--overwrite). Nothing was installed"
        )


def _equal(path: Path, info: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum == info.CRC


def _extract(archive: zipfile.ZipFile, members: Members, folder: Path) -> None:
    for path, info in members.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # archive.extract would honour links and permissions stored in the archive; this writes plain files only
        with archive.open(info) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)


def _check(members: Members, folder: Path) -> None:
    """Check every file that prediction or training would open; nothing in them is executed."""
    from nnunetv2.model_sharing.shared_content import check_shared_file  # imports torch

    for path in members:
        try:
            check_shared_file(folder / path)
        except DataError as err:
            reason = str(err).replace(f"{folder}{os.sep}", "")
            raise DataError(f"{path} in the archive cannot be used: {reason}. Nothing was installed") from err


def _put_in_place(members: Members, unpacked: Path, root: Path, retired: Path, replaced: set[PurePosixPath]) -> None:
    """Move unpacked files to their final place: new and replaced units as a whole, otherwise only missing files."""
    for unit in sorted({unit_of(path) for path in members}):
        target = root / unit
        target.parent.mkdir(parents=True, exist_ok=True)
        if unit in replaced:
            _exchange(unpacked / unit, target, retired / unit)
        elif not target.exists():
            os.replace(unpacked / unit, target)
        else:
            for path in (path for path in members if unit_of(path) == unit):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(unpacked / path, root / path)


def _exchange(new: Path, target: Path, retired: Path) -> None:
    retired.parent.mkdir(parents=True, exist_ok=True)
    os.replace(target, retired)
    try:
        os.replace(new, target)
    except OSError:
        # Roll back, so that the previous model stays installed.
        os.replace(retired, target)
        raise
