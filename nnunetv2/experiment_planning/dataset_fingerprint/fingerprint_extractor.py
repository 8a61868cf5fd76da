"""The dataset fingerprint: spacings, shapes after cropping, and the intensities of the foreground."""

from __future__ import annotations

import hashlib
import inspect
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dinov3.utils.atomic_files import write_json
from nnunetv2.errors import DataError
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_file import READER, read_fingerprint
from nnunetv2.experiment_planning.dataset_fingerprint.intensity_distribution import IntensityDistribution
from nnunetv2.experiment_planning.suspicious_cases import (
    CaseContent,
    content_of,
    find_duplicates,
    notes_on_case,
    notes_on_duplicates,
    notes_on_files,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.preprocessing.label_values import declared_labels, label_problems
from nnunetv2.utilities.dataset_json import channel_names, read_dataset_json
from nnunetv2.utilities.message_parts import counted
from nnunetv2.utilities.processes.case_pool import map_cases
from nnunetv2.utilities.splits_file import write_duplicates

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

logger = logging.getLogger(__name__)

_SEED = 1234
_MIN_DRAWS_AT_ONCE, _MAX_DRAWS_AT_ONCE = 1 << 18, 1 << 22


class CaseFingerprint(NamedTuple):
    """Contribution of one case to the fingerprint."""

    shape_after_crop: tuple[int, ...]
    """Voxels per axis of the bounding box of the non-zero voxels."""
    spacing: tuple[float, ...]
    """mm per axis, in the order of the array axes."""
    foreground_intensities: list[IntensityDistribution]
    """Distribution of the sampled foreground voxels, per channel."""
    relative_size_after_cropping: float
    """Share of the voxels inside the bounding box."""
    content: CaseContent | None = None
    """What is checked without reading the case again; None: not checked."""


class DatasetFingerprintExtractor:
    """Reads all training cases once and writes `dataset_fingerprint.json`.

    Every case has equal weight in the intensity statistics: the same number of foreground voxels is drawn with
    replacement from each, 1e8 over all cases. Only the count per distinct value is stored, so that memory depends on
    the number of distinct intensities and not on the number of draws.

    Args:
        dataset_name_or_id: for example 4 or "Dataset004_Hippocampus".
        num_processes: upper limit for worker processes.
        verbose: logs one line per case.

    Attributes:
        check_labels: reject labels that dataset.json does not name. False for preprocessors that change labels.
        warn_of_suspicious_cases: log constant, duplicate and unlabelled cases, and labels without an image.
    """

    num_foreground_voxels_for_intensitystats = 10e7

    def __init__(self, dataset_name_or_id: str | int, num_processes: int = 8, verbose: bool = False) -> None:
        from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        self.verbose = verbose
        self.show_progress_bar = True
        self.check_labels = True
        self.warn_of_suspicious_cases = True
        self.dataset_name = maybe_convert_to_dataset_name(dataset_name_or_id)
        self.input_folder = os.path.join(nnUNet_raw, self.dataset_name)
        self.num_processes = num_processes
        self.dataset_json = read_dataset_json(os.path.join(self.input_folder, "dataset.json"))
        self.dataset = get_filenames_of_train_images_and_targets(self.input_folder, self.dataset_json)

    @staticmethod
    def collect_foreground_intensities(
        segmentation: np.ndarray, images: np.ndarray, seed: int = _SEED, num_samples: int = 10000
    ) -> list[IntensityDistribution]:
        """Draws foreground voxels with replacement; all channels use one random stream, in order.

        Args:
            segmentation: (1, X, Y, Z); voxels above 0 are foreground.
            images: (C, X, Y, Z).
            seed: seed of the random stream.
            num_samples: draws per channel.

        Returns:
            One distribution per channel, empty if there is no foreground.

        Raises:
            DataError: an array contains NaN.
        """
        for name, array in (("segmentation", segmentation), ("image", images)):
            if np.isnan(array).any():
                raise DataError(f"the {name} holds NaN; replace NaN by a value that makes sense for the data")
        random_state = np.random.RandomState(seed)
        foreground = segmentation[0] > 0
        distributions = []
        for channel in images:
            distribution = IntensityDistribution()
            values = channel[foreground]
            if len(values):
                distribution.add(values, _draw_counts(random_state, len(values), num_samples))
            distributions.append(distribution)
        return distributions

    @staticmethod
    def analyze_case(
        image_files: Sequence[str],
        segmentation_file: str,
        reader_writer_class: type[BaseReaderWriter],
        num_samples: int = 10000,
    ) -> CaseFingerprint:
        """Reads and describes one case.

        Raises:
            DataError: the files cannot be used.
            UsageError: the reader of a user returned something that is no image.
        """
        from nnunetv2.imageio.checked_reading import read_images, read_seg
        from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

        reader = reader_writer_class()
        images, properties = read_images(reader, image_files)
        segmentation, _ = read_seg(reader, segmentation_file)
        if images.shape[1:] != segmentation.shape[1:]:
            raise DataError(
                f"Shapes differ, {images.shape[1:]} voxels in {', '.join(image_files)} against "
                f"{segmentation.shape[1:]} in {segmentation_file}"
            )
        cropped_images, cropped_segmentation, _ = crop_to_nonzero(images, segmentation)
        try:
            intensities = DatasetFingerprintExtractor.collect_foreground_intensities(
                cropped_segmentation, cropped_images, num_samples=num_samples
            )
        except DataError as err:
            raise DataError(f"{err} (images {', '.join(image_files)}, segmentation {segmentation_file})") from err
        shape_after_crop = cropped_images.shape[1:]
        relative_size = math.prod(shape_after_crop) / math.prod(images.shape[1:])
        return CaseFingerprint(
            shape_after_crop,
            tuple(properties["spacing"]),
            intensities,
            relative_size,
            content_of(images, segmentation),
        )

    def run(self, overwrite_existing: bool = False) -> dict[str, Any]:
        """Returns the fingerprint; computes and writes it if `overwrite_existing`, or it is missing or unusable.

        A fingerprint is unusable if it is damaged, if another reader of a user made it, or the same one before its file
        changed.
        """
        fingerprint_file = Path(nnUNet_preprocessed, self.dataset_name, "dataset_fingerprint.json")
        if fingerprint_file.is_file() and not overwrite_existing:
            try:
                fingerprint = read_fingerprint(fingerprint_file)
                reason = self._reason_to_renew(fingerprint)
            except DataError as err:
                reason = str(err)
            if reason is None:
                return fingerprint
            logger.warning("%s is computed again: %s", fingerprint_file, reason)
        fingerprint, duplicates = self._fingerprint()
        fingerprint_file.parent.mkdir(parents=True, exist_ok=True)
        write_duplicates(duplicates, fingerprint_file.parent)
        write_json(fingerprint, fingerprint_file, sort_keys=True)
        return fingerprint

    def _reason_to_renew(self, fingerprint: dict[str, Any]) -> str | None:
        """Why an existing fingerprint cannot be used; None if it can."""
        from nnunetv2.utilities import extensions

        recorded = fingerprint.get(READER)
        if recorded is None and not extensions.of_users("reader"):
            return None
        current = description_of_reader(self._reader_class()) if self.dataset else None
        if recorded == current:
            return None
        made_by = "a reader of nnU-Net or an unknown one" if recorded is None else f"the reader {recorded['name']}"
        changed = recorded is not None and current is not None and recorded["name"] == current["name"]
        return f"it was made by {made_by}, whose file has changed since" if changed else f"it was made by {made_by}"

    def _fingerprint(self) -> tuple[dict[str, Any], list[list[str]]]:
        """Returns the fingerprint, and the groups of cases with equal images."""
        if not self.dataset:
            raise DataError(
                f"There is no training case in {self.input_folder}/imagesTr: no file is named like "
                f"case_0000{self.dataset_json['file_ending']} (file_ending in dataset.json)"
            )
        reader_class = self._reader_class()
        spacings, shapes, relative_sizes = [], [], []
        intensities = [IntensityDistribution() for _ in channel_names(self.dataset_json)]
        contents = {}
        for identifier, case in zip(self.dataset, self._analyzed_cases(reader_class), strict=True):
            if len(case.foreground_intensities) != len(intensities):
                raise DataError(
                    f"Case {identifier} has {len(case.foreground_intensities)} channels; dataset.json names "
                    f"{len(intensities)}"
                )
            for total, of_case in zip(intensities, case.foreground_intensities, strict=True):
                total.merge(of_case)
            spacings.append(np.asarray(case.spacing).tolist())
            shapes.append([int(size) for size in case.shape_after_crop])
            relative_sizes.append(case.relative_size_after_cropping)
            if case.content is not None:
                contents[identifier] = case.content
            if self.verbose:
                logger.info("%s: shape after cropping %s, spacing %s", identifier, shapes[-1], spacings[-1])
        if self.check_labels:
            self._require_declared_labels(contents, reader_class)
        if any(distribution.moments.count == 0 for distribution in intensities):
            raise DataError(f"No training case of {self.input_folder} has a labelled voxel; there is nothing to learn")
        reader = description_of_reader(reader_class)
        samples = {identifier: content.sample for identifier, content in contents.items()}
        duplicates = find_duplicates(samples, self.dataset, reader_class, self.num_processes)
        if self.warn_of_suspicious_cases:
            self._warn_of_suspicious_cases(contents, duplicates)
        fingerprint = {
            "spacings": spacings,
            "shapes_after_crop": shapes,
            "foreground_intensity_properties_per_channel": {
                str(channel): distribution.statistics() for channel, distribution in enumerate(intensities)
            },
            "median_relative_size_after_cropping": float(np.median(relative_sizes)),
            **({} if reader is None else {READER: reader}),
        }
        return fingerprint, duplicates

    def _require_declared_labels(
        self, contents: Mapping[str, CaseContent], reader_class: type[BaseReaderWriter]
    ) -> None:
        """Rejects labels that dataset.json does not name; reads only faulty label files again, to count them."""
        expected = declared_labels(self.dataset_json)
        faulty = [identifier for identifier, content in contents.items() if not content.labels.fits(expected)]
        if not faulty:
            return
        jobs = [(self.dataset[identifier]["label"], reader_class, expected) for identifier in faulty]
        problems = [
            problem for found in map_cases(_problems_of_label_file, jobs, self.num_processes) for problem in found
        ]
        for problem in problems:
            logger.error(problem)
        raise DataError(
            f"{len(faulty)} of {counted(len(self.dataset), 'label file')} of {self.input_folder} have values that "
            f"dataset.json does not name, each logged above; the first: {problems[0]}"
        )

    def _warn_of_suspicious_cases(self, contents: Mapping[str, CaseContent], duplicates: list[list[str]]) -> None:
        for identifier, content in contents.items():
            files = self.dataset[identifier]
            for note in notes_on_case(content, files["images"], files["label"]):
                logger.warning("%s: %s", identifier, note)
        for note in notes_on_duplicates(duplicates) + notes_on_files(
            self.input_folder, self.dataset_json, self.dataset
        ):
            logger.warning(note)

    def _reader_class(self) -> type[BaseReaderWriter]:
        from nnunetv2.imageio.reader_writer_registry import reader_of_training_cases

        return reader_of_training_cases(self.dataset_json, self.dataset)

    def _analyzed_cases(self, reader_class: type[BaseReaderWriter]) -> Iterator[CaseFingerprint]:
        cases = list(self.dataset.values())
        num_samples = int(self.num_foreground_voxels_for_intensitystats // len(cases))
        return map_cases(
            type(self).analyze_case,
            [(case["images"], case["label"], reader_class, num_samples) for case in cases],
            self.num_processes,
            description="Extracting dataset fingerprint",
            show_progress=self.show_progress_bar,
            files=[image for case in cases for image in case["images"]],
        )


def description_of_reader(reader: type[BaseReaderWriter]) -> dict[str, str] | None:
    """Name and file of a user's reader, by which its fingerprints are recognised; None for those of this package."""
    if reader.__module__.startswith("nnunetv2."):
        return None
    path = Path(inspect.getfile(reader))
    return {"name": reader.__name__, "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _problems_of_label_file(
    label_file: str, reader_class: type[BaseReaderWriter], expected: Sequence[int]
) -> list[str]:
    return label_problems(reader_class().read_seg(label_file)[0], expected, label_file)


def _draw_counts(random_state: np.random.RandomState, population: int, num_samples: int) -> np.ndarray:
    """Draws indices with replacement and returns the count of each.

    The random stream equals `random_state.choice(population, num_samples, replace=True)`, independent of the chunk
    size.
    """
    counts = np.zeros(population, dtype=np.int64)
    at_once = min(max(population, _MIN_DRAWS_AT_ONCE), _MAX_DRAWS_AT_ONCE)
    index_type = np.int32 if population <= np.iinfo(np.int32).max else np.int64
    for start in range(0, num_samples, at_once):
        drawn = random_state.randint(0, population, size=min(at_once, num_samples - start), dtype=index_type)
        counts += np.bincount(drawn, minlength=population)
    return counts
