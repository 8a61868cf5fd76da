"""Copy images and label maps together with the files that belong to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.errors import DataError

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter


def copy_image(
    reader: BaseReaderWriter, source: str | os.PathLike, target: str | os.PathLike, *, only_if_newer: bool = False
) -> None:
    """Copy a file and its companions with their time stamps, each atomically, the file itself last.

    Args:
        reader: the reader of the format, which knows the companions.
        source: an image or a label map.
        target: the copy; its folder must exist.
        only_if_newer: keep copies that are at least as new as their source.

    Raises:
        DataError: the source is missing, or cannot be copied under the other name.
    """
    if not os.path.isfile(source):
        raise DataError(f"There is no image file {os.fspath(source)}")
    for file, copy in (*_renamed(reader, Path(source), Path(target)), (source, target)):
        if only_if_newer and os.path.isfile(copy) and os.stat(copy).st_mtime >= os.stat(file).st_mtime:
            continue
        with replace_when_complete(copy) as temporary:
            shutil.copyfile(file, temporary)
            shutil.copystat(file, temporary)


def _renamed(reader: BaseReaderWriter, source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Companions of the source, and their names beside the target."""
    stem, new_stem = source.name.split(".")[0], target.name.split(".")[0]
    for companion in map(Path, reader.companion_files(os.fspath(source))):
        if not companion.is_file():
            raise DataError(f"There is no {companion}, which belongs to {source}")
        if companion.name.startswith(stem) and stem == new_stem:
            yield companion, target.with_name(companion.name)
        elif companion.stem == stem and companion.suffix == ".json":
            yield companion, target.with_name(f"{new_stem}.json")
        else:
            raise DataError(
                f"{source} keeps its voxels in {companion.name}, a name that a copy beside {target.name} could share "
                f"with other cases; write both as one file (.nrrd, .mha, .nii.gz)"
            )
