"""Select the files of a zip file to install; anything that is not part of a trained model is rejected."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from nnunetv2.errors import DataError

_DATASET = r"Dataset\d{3,}(?!\d)[^/]*"
_MODEL = r"[^/]+?__[^/]+?__[^/]+"
_RESULTS = r"fold_(\d+|all)/validation|crossval_results_folds_[^/]+(/postprocessed)?"
_FOLDER = re.compile(rf"{_DATASET}(/ensembles/ensemble___[^/]+|/{_MODEL}(/fold_(\d+|all)|/({_RESULTS}))?)?")
_ENDINGS = (".pth", ".json", ".txt", ".md", ".yaml", ".csv", ".jsonl", ".png", ".pdf", ".svg", ".pkl", ".npz")
_NAMES_WITHOUT_ENDING = ("LICENSE", "NOTICE", "README")
_LEFT_BY_SYSTEMS = re.compile(r"(^|/)(__MACOSX/.*|\.DS_Store|Thumbs\.db|\._[^/]*)$")
_FORBIDDEN = re.compile(r"[\\:\x00-\x1f\x7f]")
_LONGEST_NAME = 255  # bytes, the limit of common file systems

DEFAULT_MAX_GB = 50.0  # of downloads: five folds of the largest networks with their optimizer states
MAX_MEMBERS = 100_000
MAX_RATIO = 100  # weights hardly compress: honest archives stay below 5, unless they consist mostly of masks
RATIO_COUNTS_FROM = 2**30  # unpacked bytes below which the ratio is not checked


def members_of_models(
    archive: zipfile.ZipFile, archive_size: int, free_space: int
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Select the files to install, by path relative to `nnUNet_results`; reads only the table of contents.

    Args:
        archive_size: bytes.
        free_space: bytes available for unpacking.

    Raises:
        DataError: a member is not allowed, or the members are too many or too large.
    """
    from nnunetv2.imageio.reader_writer_registry import known_file_endings

    infos = [info for info in archive.infolist() if not info.is_dir() and not _LEFT_BY_SYSTEMS.search(info.filename)]
    if len(infos) > MAX_MEMBERS:
        raise DataError(f"The archive has {len(infos)} files; a model has at most {MAX_MEMBERS}")
    total = sum(info.file_size for info in infos)
    if total > RATIO_COUNTS_FROM and total > MAX_RATIO * archive_size:
        raise DataError(f"The archive would grow from {archive_size} to {total} bytes, far more than any trained model")
    if total > free_space:
        raise DataError(f"The archive needs {total} bytes and nnUNet_results has {free_space} left; free some space")
    endings = (*_ENDINGS, *known_file_endings())
    members: dict[PurePosixPath, zipfile.ZipInfo] = {}
    folded: set[str] = set()
    for info in infos:
        for reason in _objections(info, endings):
            raise DataError(f"{info.filename!r} in the archive is not installed: {reason}")
        # On a case-insensitive file system one member would overwrite the other.
        if info.filename.casefold() in folded:
            raise DataError(f"{info.filename!r} is twice in the archive")
        folded.add(info.filename.casefold())
        members[PurePosixPath(info.filename)] = info
    _require_whole_models(members)
    return members


def _objections(info: zipfile.ZipInfo, endings: tuple[str, ...]) -> Iterator[str]:
    parts = info.filename.split("/")
    # Archives made on Unix store the file mode in the upper 16 bits.
    kind = stat.S_IFMT(info.external_attr >> 16)
    # `orig_filename`, because zipfile cuts `filename` at a NUL byte.
    if _FORBIDDEN.search(info.orig_filename) or any(part.strip(" .") == "" for part in parts):
        yield "its path leads out of the folder of models or has forbidden characters"
    elif any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in parts):
        yield "its name is too long"
    elif kind not in (0, stat.S_IFREG):
        yield "it is a link or a special file"
    elif info.flag_bits & 1:
        yield "it is encrypted"
    elif not _FOLDER.fullmatch("/".join(parts[:-1])):
        yield "models are in DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/, and it is elsewhere"
    elif not parts[-1].lower().endswith(endings) and parts[-1] not in _NAMES_WITHOUT_ENDING:
        yield "files of this kind are no part of a trained model"


def model_folders(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Sorted model folders among installed paths, `DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION`."""
    return sorted({unit_of(path) for path in paths if len(path.parts) > 2 and path.parts[1] != "ensembles"})


def unit_of(path: PurePosixPath) -> PurePosixPath:
    """The unit that a file is installed with: the folder of its model or ensemble, or the file itself."""
    depth = 3 if path.parts[1] == "ensembles" else 2
    return PurePosixPath(*path.parts[:depth])


def _require_whole_models(members: dict[PurePosixPath, zipfile.ZipInfo]) -> None:
    folders = model_folders(members)
    if not folders:
        raise DataError(
            "There is no trained model in the archive: it has no folder DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION"
        )
    for folder in folders:
        missing = [name for name in ("plans.json", "dataset.json") if folder / name not in members]
        if not any(path.suffix == ".pth" and path.parent.parent == folder for path in members):
            missing.append("a checkpoint fold_X/*.pth")
        if missing:
            raise DataError(f"{folder} in the archive is not a whole model: it has no {', '.join(missing)}")
