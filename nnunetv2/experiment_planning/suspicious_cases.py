"""Finds cases that can be used, but probably should not be: constant, duplicate, without labels, without images."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dinov3.utils.visible_files import visible_files
from nnunetv2.preprocessing.label_values import LabelRange, range_of
from nnunetv2.utilities.processes.case_pool import map_cases

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

_SAMPLED_VOXELS = 1 << 16
_SHOWN = 10


class CaseContent(NamedTuple):
    """What a case tells about itself while it is in memory; small enough to be sent to another process."""

    labels: LabelRange
    has_foreground: bool
    constant_channels: tuple[int, ...]
    sample: str
    """digest of the shape and of evenly spaced voxels: cheap, and equal if the images are equal"""


def content_of(images: np.ndarray, segmentation: np.ndarray) -> CaseContent:
    """Summarises images `(C, X, Y, Z)` and labels `(1, X, Y, Z)`."""
    labels = range_of(segmentation)
    constant = [number for number, each in enumerate(images) if _is_constant(_sample(each)) and _is_constant(each)]
    has_foreground = not labels.lowest == labels.highest == 0
    return CaseContent(labels, has_foreground, tuple(constant), _sample_digest(images))


def _sample_digest(images: np.ndarray) -> str:
    digest = hashlib.blake2b(str(images.shape).encode(), digest_size=16)
    for channel in images:
        digest.update(_sample(channel).tobytes())
    return digest.hexdigest()


def find_duplicates(
    samples: Mapping[str, str],
    dataset: Mapping[str, Mapping[str, Any]],
    reader_class: type[BaseReaderWriter],
    num_processes: int,
) -> list[list[str]]:
    """Groups the cases whose images are equal voxel by voxel.

    Args:
        samples: `CaseContent.sample` of each case; only cases with equal ones are read again.
        dataset: files of each case.
        reader_class: reader of the images.
        num_processes: upper limit for worker processes.
    """
    suspects = [case for cases in _with_equal_values(samples) for case in cases]
    jobs = [(dataset[case]["images"], reader_class) for case in suspects]
    files = [image for images, _ in jobs for image in images]
    digests = map_cases(_digest_of_files, jobs, num_processes, files=files) if jobs else []
    return _with_equal_values(dict(zip(suspects, digests, strict=True)))


def notes_on_files(
    raw_folder: str | os.PathLike, dataset_json: Mapping[str, Any], cases: Mapping[str, Any]
) -> list[str]:
    """Notes on label files that belong to no image; datasets that list their files have none."""
    if "dataset" in dataset_json:
        return []
    ending = dataset_json["file_ending"]
    files = visible_files(Path(raw_folder, "labelsTr"), ending)
    orphans = [path.name for path in files if path.name[: -len(ending)] not in cases]
    return [f"labels without an image in imagesTr, which are not used: {_listed(orphans)}"] if orphans else []


def notes_on_duplicates(duplicates: Sequence[Sequence[str]]) -> list[str]:
    return [f"cases with equal images: {_listed(cases)}; remove all but one" for cases in duplicates]


def notes_on_case(content: CaseContent, image_files: Sequence[str], label_file: str) -> list[str]:
    """Notes on the content of one case."""
    notes = [] if content.has_foreground else [f"no voxel but background (label 0): {label_file}"]
    for channel in content.constant_channels:
        file = image_files[channel] if channel < len(image_files) else image_files[-1]
        notes.append(f"all voxels of channel {channel} have the same value, as in an empty image: {file}")
    return notes


def _sample(channel: np.ndarray) -> np.ndarray:
    return channel.reshape(-1)[:: max(1, channel.size // _SAMPLED_VOXELS)]


def _is_constant(values: np.ndarray) -> bool:
    return bool(values.min() == values.max())


def _digest_of_files(image_files: Sequence[str], reader_class: type[BaseReaderWriter]) -> str:
    images, _ = reader_class().read_images(image_files)
    return hashlib.blake2b(np.ascontiguousarray(images)).hexdigest()


def _with_equal_values(values: Mapping[str, str]) -> list[list[str]]:
    by_value = defaultdict(list)
    for case, value in values.items():
        by_value[value].append(case)
    return [cases for cases in by_value.values() if len(cases) > 1]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
