"""Dice, IoU and voxel counts of predicted segmentations against references, per case and on average."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dinov3.utils.visible_files import visible_files
from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import DataError, PartialError, UsageError
from nnunetv2.evaluation.confusion import LabelConfusion, LabelOrRegion, labels_of
from nnunetv2.evaluation.evaluation_options import EvaluationOptions, FurtherMetrics
from nnunetv2.evaluation.field_of_view import field_files, read_field
from nnunetv2.evaluation.picture_cure import other_pictures
from nnunetv2.evaluation.summary_json import (
    key_to_label_or_region,
    label_or_region_to_key,
    load_summary_json,
    save_summary_json,
    summary_of_cases,
)
from nnunetv2.imageio.checked_reading import read_seg
from nnunetv2.imageio.geometry import mismatch_is_allowed, placement_differences, spacings_agree
from nnunetv2.upstream_names import command_elsewhere
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.processes.case_pool import map_cases

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

__all__ = [
    "compute_metrics",
    "compute_metrics_on_folder",
    "compute_metrics_on_folder2",
    "compute_metrics_on_folder_simple",
    "compute_tp_fp_fn_tn",
    "confusion_of_pair",
    "evaluate_folder_entry_point",  # noqa: F822 - see __getattr__
    "evaluate_simple_entry_point",  # noqa: F822 - see __getattr__
    "key_to_label_or_region",
    "label_or_region_to_key",
    "labels_to_list_of_regions",
    "load_summary_json",
    "matched_files",
    "num_processes_for",
    "read_pair",
    "region_or_label_to_mask",
    "save_summary_json",
]

logger = logging.getLogger(__name__)

_WORTH_PROCESSES_BYTES = 2**20  # of compressed references; below it, starting processes takes longer than it saves


def __getattr__(name: str) -> Any:
    return command_elsewhere(__name__, name)


def labels_to_list_of_regions(labels: Sequence[int]) -> list[tuple[int]]:
    """Convert each label to a region with this single label."""
    return [(label,) for label in labels]


def region_or_label_to_mask(segmentation: np.ndarray, region_or_label: LabelOrRegion) -> np.ndarray:
    """Boolean mask of the voxels that belong to a label or region."""
    return np.isin(segmentation, labels_of(region_or_label))


def compute_tp_fp_fn_tn(
    mask_ref: np.ndarray, mask_pred: np.ndarray, ignore_mask: np.ndarray | None = None
) -> tuple[int, int, int, int]:
    """Count true positives, false positives, false negatives and true negatives of two boolean masks.

    Voxels where `ignore_mask` is True are excluded from all four counts.
    """
    counted = slice(None) if ignore_mask is None else ~ignore_mask
    # Codes 0 to 3 combine both masks, so one pass over the voxels yields all four counts.
    joint = np.bincount(2 * mask_ref[counted].ravel() + mask_pred[counted].ravel(), minlength=4)
    tn, fp, fn, tp = (int(count) for count in joint)
    return tp, fp, fn, tn


def compute_metrics(
    reference_file: str,
    prediction_file: str,
    image_reader_writer: BaseReaderWriter,
    labels_or_regions: Sequence[LabelOrRegion],
    ignore_label: int | None = None,
    *,
    allow_geometry_mismatch: bool = True,
    further: FurtherMetrics | None = None,
    field_file: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Compare a prediction with its reference.

    Args:
        reference_file, prediction_file: segmentations on the same voxel grid.
        image_reader_writer: a reader instance with `read_seg`.
        labels_or_regions: labels, or tuples of labels that form one region.
        ignore_label: voxels with this label in the reference are excluded.
        allow_geometry_mismatch: only warn if spacing, origin or direction differ; shapes must always match.
        further: computes metrics that are added to each region.
        field_file: field of view; voxels outside of it are excluded.

    Returns:
        `reference_file`, `prediction_file`, and `metrics`: for each label or region Dice, IoU, FP, TP, FN, TN, n_pred
        and n_ref. Dice and IoU are NaN if a region is empty in both files.

    Raises:
        DataError: the files lie on different voxel grids, or hold values that are not labels.
    """
    reference, prediction, properties = read_pair(
        reference_file, prediction_file, image_reader_writer, allow_geometry_mismatch=allow_geometry_mismatch
    )
    is_inside = None if field_file is None else read_field(field_file, reference.shape[1:])
    try:
        confusion = confusion_of_pair(
            reference, prediction, labels_or_regions, ignore_label, None if is_inside is None else is_inside[None]
        )
    except DataError as err:
        raise DataError(f"{err}: prediction {prediction_file} and reference {reference_file}") from err
    metrics = {region: confusion.metrics(region) for region in labels_or_regions}
    if further is not None:
        added = further(reference, prediction, properties["spacing"], list(labels_or_regions), ignore_label, is_inside)
        metrics = {region: {**values, **added[region]} for region, values in metrics.items()}
    return {"reference_file": reference_file, "prediction_file": prediction_file, "metrics": metrics}


def read_pair(
    reference_file: str,
    prediction_file: str,
    image_reader_writer: BaseReaderWriter,
    *,
    allow_geometry_mismatch: bool = True,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read reference and prediction, both (1, Z, Y, X), and the properties of the prediction.

    Raises:
        DataError: the files lie on different voxel grids; see `compute_metrics`.
    """
    reference, reference_properties = read_seg(image_reader_writer, reference_file)
    prediction, prediction_properties = read_seg(image_reader_writer, prediction_file)
    pair = f"prediction {prediction_file} and reference {reference_file}"
    if reference.shape != prediction.shape:
        raise DataError(f"Shapes differ, {prediction.shape[1:]} against {reference.shape[1:]} voxels: {pair}")
    _check_geometry(prediction_properties, reference_properties, pair, allow_geometry_mismatch)
    return reference, prediction, prediction_properties


def confusion_of_pair(
    reference: np.ndarray,
    prediction: np.ndarray,
    labels_or_regions: Sequence[LabelOrRegion],
    ignore_label: int | None = None,
    is_inside: np.ndarray | None = None,
) -> LabelConfusion:
    """Count the voxels of two arrays of the same shape, excluding those with the ignore label in the reference.

    Args:
        is_inside: boolean, of the same shape; voxels where it is False are excluded as well.
    """
    counted = {label for region in labels_or_regions for label in labels_of(region)}
    confusion = LabelConfusion(counted if ignore_label is None else counted | {ignore_label})
    if is_inside is not None:
        reference, prediction = reference[is_inside], prediction[is_inside]
    confusion.add(reference, prediction)
    if ignore_label is not None:
        confusion.drop_reference_label(ignore_label)
    return confusion


def _check_geometry(prediction: dict[str, Any], reference: dict[str, Any], pair: str, allow_mismatch: bool) -> None:
    differences = placement_differences(prediction, reference)
    if not spacings_agree(prediction, reference):
        differences.insert(0, f"spacing {list(prediction['spacing'])} against {list(reference['spacing'])} mm")
    if not differences:
        return
    message = f"The voxel grids differ in {' and '.join(differences)}: {pair}"
    if not (allow_mismatch or mismatch_is_allowed()):
        raise DataError(f"{message}; if the voxels do correspond, allow it with --allow_geometry_mismatch")
    logger.warning(message)


def compute_metrics_on_folder(
    folder_ref: str,
    folder_pred: str,
    output_file: str | None,
    image_reader_writer: BaseReaderWriter,
    file_ending: str,
    regions_or_labels: Sequence[LabelOrRegion],
    ignore_label: int | None = None,
    num_processes: int | None = None,
    chill: bool = True,
    *,
    allow_geometry_mismatch: bool = True,
    options: EvaluationOptions | None = None,
) -> dict[str, Any]:
    """Compare every prediction in a folder with the reference of the same file name.

    Args:
        folder_ref, folder_pred: folders of segmentations.
        output_file: path of the summary (`.json`); None writes no file.
        image_reader_writer: a reader instance with `read_seg`.
        file_ending: ending of the files to compare, for example ".nii.gz".
        regions_or_labels, ignore_label, allow_geometry_mismatch: as in `compute_metrics`.
        num_processes: upper limit for worker processes; by default `nnUNet_def_n_proc` or 8.
        chill: skip references without a prediction.
        options: further metrics and fields of view; None evaluates as upstream does.

    Returns:
        `metric_per_case`; `mean`: for each region the mean over the cases in which a metric is defined;
        `foreground_mean`: their mean over all regions except background.

    Raises:
        PartialError: predictions are missing; not with `chill`.
        DataError: there is no prediction, references are missing, or a pair cannot be compared.
        UsageError: `output_file` is not a `.json` file.
    """
    if output_file is not None and not str(output_file).endswith(".json"):
        raise UsageError(f"The output file is {output_file}; it must end with .json")
    if not regions_or_labels:
        raise UsageError("No labels or regions to evaluate were given; name at least one")
    names = matched_files(folder_ref, folder_pred, file_ending, chill)
    options = options or EvaluationOptions()
    cases = {name: name[: -len(file_ending)] for name in names}
    fields = {} if options.fields is None else field_files(options.fields, cases.values())
    jobs = [
        (
            fields.get(cases[name]),
            os.path.join(folder_ref, name),
            os.path.join(folder_pred, name),
            image_reader_writer,
            regions_or_labels,
            ignore_label,
        )
        for name in names
    ]
    compare = functools.partial(
        _compute_within, allow_geometry_mismatch=allow_geometry_mismatch, further=options.further
    )
    num_workers = num_processes_for([reference for _, reference, *_ in jobs], num_processes)
    results = list(map_cases(compare, jobs, num_workers))
    _warn_of_absent(results, regions_or_labels)
    summary = summary_of_cases(results, regions_or_labels, options.names, options.primary)
    if output_file is not None:
        save_summary_json(summary, output_file)
    return summary


def _warn_of_absent(results: Sequence[dict[str, Any]], regions_or_labels: Sequence[LabelOrRegion]) -> None:
    for label in regions_or_labels:
        found = [result["metrics"][label] for result in results]
        if not any(scores["n_pred"] or scores["n_ref"] for scores in found):
            logger.warning("Label %s is in none of the references and predictions; its scores are NaN", label)


def _compute_within(field_file: os.PathLike | None, *arguments: Any, **keywords: Any) -> dict[str, Any]:
    """`compute_metrics` within a field of view."""
    return compute_metrics(*arguments, field_file=field_file, **keywords)


def num_processes_for(files: Sequence[str], at_most: int | None) -> int:
    """Number of processes worth starting to read these files; by default at most `nnUNet_def_n_proc` or 8."""
    at_most = at_most or get_default_num_processes()
    return at_most if sum(os.path.getsize(path) for path in files) >= _WORTH_PROCESSES_BYTES else 1


def matched_files(folder_ref: str, folder_pred: str, file_ending: str, chill: bool) -> list[str]:
    """Match predictions to references and return the sorted file names.

    Raises:
        DataError: there are no predictions, or one has no reference.
        PartialError: a reference has no prediction; not with `chill`.
    """
    references, predictions = (files_with_ending(folder, file_ending) for folder in (folder_ref, folder_pred))
    if not predictions:
        raise DataError(f"There is no prediction (*{file_ending}) in {folder_pred}{other_pictures(folder_pred)}")
    without_reference = sorted(set(predictions) - set(references))
    if without_reference:
        raise DataError(
            f"{len(without_reference)} of {len(predictions)} predictions in {folder_pred} have no reference in "
            f"{folder_ref}: {_shortened(without_reference)}"
        )
    missing = sorted(set(references) - set(predictions))
    if missing and not chill:
        raise PartialError(
            f"{len(predictions)} of {len(references)} cases in {folder_ref} have a prediction in {folder_pred}, and "
            f"nothing was evaluated; predict {_shortened(missing)}, or evaluate those that are there with --chill"
        )
    if missing:
        logger.info(
            "Evaluating %d of %d cases; there is no prediction of %s",
            len(predictions),
            len(references),
            _shortened(missing),
        )
    return predictions


def files_with_ending(folder: str, file_ending: str) -> list[str]:
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is not a folder")
    return [path.name for path in visible_files(folder, file_ending)]


def _shortened(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def compute_metrics_on_folder2(
    folder_ref: str,
    folder_pred: str,
    dataset_json_file: str,
    plans_file: str | None,
    output_file: str | None = None,
    num_processes: int | None = None,
    chill: bool = False,
    *,
    allow_geometry_mismatch: bool = True,
    regions: Sequence[LabelOrRegion] | None = None,
    options: EvaluationOptions | None = None,
) -> dict[str, Any]:
    """Evaluate the labels or regions of a dataset; writes `summary.json` into `folder_pred` by default.

    See `compute_metrics_on_folder` for the other arguments and errors.

    Args:
        plans_file: names the class that interprets the labels; None selects the default one.
        regions: labels or regions to score; None selects those of the dataset.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    dataset_json = read_dataset_json(dataset_json_file, trained=True)
    file_ending = dataset_json["file_ending"]
    references = files_with_ending(folder_ref, file_ending)
    if not references:
        raise DataError(f"There is no reference (*{file_ending}) in {folder_ref}")
    reader_class = determine_reader_writer_from_dataset_json(
        dataset_json, [os.path.join(folder_ref, name) for name in references], verbose=False
    )
    labels = label_manager_of(dataset_json, plans_file)
    if regions is None:
        regions = labels.foreground_regions if labels.has_regions else labels.foreground_labels
    return compute_metrics_on_folder(
        folder_ref,
        folder_pred,
        os.path.join(folder_pred, "summary.json") if output_file is None else output_file,
        reader_class(),
        file_ending,
        regions,
        labels.ignore_label,
        num_processes,
        chill=chill,
        allow_geometry_mismatch=allow_geometry_mismatch,
        options=options,
    )


def label_manager_of(dataset_json: dict[str, Any], plans_file: str | None) -> LabelManager:
    """The labels of a dataset, interpreted by the class that the plans name; without plans, by the default one."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    if plans_file is not None:
        return PlansManager(plans_file).get_label_manager(dataset_json)
    return LabelManager(dataset_json["labels"], dataset_json.get("regions_class_order"), allow_lost_regions=True)


def compute_metrics_on_folder_simple(
    folder_ref: str,
    folder_pred: str,
    labels: Sequence[int],
    output_file: str | None = None,
    num_processes: int | None = None,
    ignore_label: int | None = None,
    chill: bool = False,
    *,
    allow_geometry_mismatch: bool = True,
    options: EvaluationOptions | None = None,
) -> dict[str, Any]:
    """Evaluate given labels without a dataset.json; the file format is detected from the references.

    See `compute_metrics_on_folder` for the other arguments and errors.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending

    file_ending = image_ending(folder_ref)
    references = [os.path.join(folder_ref, name) for name in files_with_ending(folder_ref, file_ending)]
    reader_class = determine_reader_writer_from_file_ending(file_ending, references, verbose=False)
    return compute_metrics_on_folder(
        folder_ref,
        folder_pred,
        os.path.join(folder_pred, "summary.json") if output_file is None else output_file,
        reader_class(),
        file_ending,
        labels,
        ignore_label,
        num_processes,
        chill=chill,
        allow_geometry_mismatch=allow_geometry_mismatch,
        options=options,
    )


def image_ending(folder: str) -> str:
    """Return the ending of the first file in a folder that a reader supports."""
    from nnunetv2.imageio.reader_writer_registry import known_file_endings

    endings = known_file_endings()
    for name in files_with_ending(folder, ""):
        known = [ending for ending in endings if name.lower().endswith(ending)]
        if known:
            ending = max(known, key=len)
            return name[-len(ending) :]
    raise DataError(f"There is no image in {folder} that a reader knows; known endings: {', '.join(endings)}")
