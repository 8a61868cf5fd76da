"""Environment variables of nnU-Net, the folders that they name, and weights in the local cache."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nnunetv2.doctor.finding import Finding, error, ok, warning
from nnunetv2.errors import NNUNetError
from nnunetv2.paths import (
    EnvironmentPath,
    nnUNet_extensions,
    nnUNet_extTrainer,
    nnUNet_preprocessed,
    nnUNet_raw,
    nnUNet_results,
)

_LEAST_FREE, _ENOUGH_FREE = 2**30, 20 * 2**30
_OLD_NAMES = {"nnUNet_raw_data_base": "nnUNet_raw", "RESULTS_FOLDER": "nnUNet_results"}


def check_roots() -> Iterator[Finding]:
    """Findings about the three root folders."""
    for root, is_written in ((nnUNet_raw, False), (nnUNet_preprocessed, True), (nnUNet_results, True)):
        yield check_root(root, is_written=is_written)
    for old, new in _OLD_NAMES.items():
        if old in os.environ and new not in os.environ:
            yield warning(old, "is a variable of nnU-Net v1, which is not read", f"set {new}")


def check_root(root: EnvironmentPath, *, is_written: bool) -> Finding:
    """Whether a root folder is set, exists and can be read, written to if needed, and has space."""
    name, value = root.variable, root.get()
    if value is None:
        return error(name, "is not set", f"run export {name}=/path/to/folder")
    folder = Path(value)
    if not folder.is_dir():
        problem = "is no folder" if folder.exists() else "does not exist"
        return error(name, f"{folder} {problem}", f"run mkdir -p {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        return error(name, f"{folder} cannot be read", f"run chmod u+rx {folder}, or ask its owner")
    if is_written and (problem := _problem_of_writing(folder)) is not None:
        return error(name, f"{folder} cannot be written to ({problem})", "change its rights, or name another folder")
    free = shutil.disk_usage(folder).free
    text = f"{folder}, {free / 2**30:.1f} GiB free"
    if not is_written:
        return ok(name, text)
    if free < _LEAST_FREE:
        return error(name, f"{text}: the disk is full", "remove files, or name a folder on another disk")
    if not folder.stat().st_mode & stat.S_IWUSR:
        return warning(name, f"{text}, writable only for root", f"run chmod u+w {folder}")
    if free < _ENOUGH_FREE:
        return warning(name, text, "datasets and checkpoints of usual size need more")
    return ok(name, text)


def _problem_of_writing(folder: Path) -> str | None:
    """Writes a small file, because access rights do not tell about read-only file systems and quotas."""
    path = folder / f".{secrets.token_hex(4)}.tmp.doctor"
    try:
        path.write_bytes(bytes(4096))
    except OSError as err:
        return err.strerror or str(err)
    finally:
        with suppress(OSError):  # a read-only file system refuses this too, though there is no file
            path.unlink(missing_ok=True)
    return None


def check_extensions() -> Iterator[Finding]:
    """Findings about the folders of the user's own trainers, heads, losses and so on; nothing if none are set."""
    for root in (nnUNet_extTrainer, nnUNet_extensions):
        for word in (root.get() or "").split(os.pathsep):
            if not word:
                continue
            if Path(word).is_dir():
                yield ok(root.variable, f"{word}, {len(list(Path(word).rglob('*.py')))} Python files")
            else:
                yield error(root.variable, f"{word} does not exist", f"correct or unset {root.variable}")


def _released_weights() -> dict[str, str]:
    """Hub repositories by `FAMILY SIZE`."""
    from nnunetv2.model.backbone_families import FAMILIES

    return {
        f"{family} {size}": row.hub_repository
        for family, sizes in FAMILIES.items()
        for size, row in sizes.items()
        if row.hub_repository is not None
    }


def check_weights() -> Finding:
    """Which released weights lie in the local cache, without asking the hub."""
    from huggingface_hub import constants, try_to_load_from_cache

    cache = Path(constants.HF_HUB_CACHE)
    try:
        known = _released_weights()
    except NNUNetError as err:  # a file or folder of the user's own backbones
        return error("weights", str(err), "correct it, or unset nnUNet_extensions")
    found = [
        name
        for name, repository in known.items()
        if isinstance(try_to_load_from_cache(repository, constants.SAFETENSORS_SINGLE_FILE), str)
    ]
    if found:
        return ok("weights", f"{', '.join(found)} in {cache}")
    cure = "the first training downloads them; on a machine without network set model.checkpoint=FILE"
    return warning("weights", f"none of {len(known)} released backbones in {cache}", cure)
