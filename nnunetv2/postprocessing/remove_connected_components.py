"""Keep only the largest connected component of labels: apply this step, and determine where it helps."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dinov3.utils.atomic_files import replace_folder_when_complete, write_json
from dinov3.utils.visible_files import visible_files
from nnunetv2.errors import DataError, UsageError
from nnunetv2.evaluation.confusion import LabelOrRegion
from nnunetv2.evaluation.evaluate_predictions import (
    matched_files,
    num_processes_for,
    region_or_label_to_mask,
    save_summary_json,
)
from nnunetv2.evaluation.segmentation_format import (
    JsonFile,
    SegmentationFormat,
    descriptions,
    format_of,
    write_descriptions,
)
from nnunetv2.evaluation.summary_json import label_or_region_to_key, summary_of_cases
from nnunetv2.imageio.checked_reading import read_seg
from nnunetv2.imageio.companions import copy_image
from nnunetv2.postprocessing.step_choice import ScoredCases, Step, Summary, choose_steps, metrics_after_steps
from nnunetv2.upstream_names import command_elsewhere
from nnunetv2.utilities.json_export import json_ready
from nnunetv2.utilities.message_parts import counted
from nnunetv2.utilities.processes.case_pool import write_every_case
from nnunetv2.utilities.restricted_pickle import load_restricted, save_pickle

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

__all__ = [
    "apply_postprocessing",
    "apply_postprocessing_to_folder",
    "determine_postprocessing",
    "entry_point_apply_postprocessing",  # noqa: F822 - see __getattr__
    "entry_point_determine_postprocessing_folder",  # noqa: F822 - see __getattr__
    "load_postprocess_save",
    "load_postprocessing",
    "remove_all_but_largest_component_from_segmentation",
]

logger = logging.getLogger(__name__)

Functions = list[Callable[..., np.ndarray]]


def __getattr__(name: str) -> Any:
    return command_elsewhere(__name__, name)


def remove_all_but_largest_component_from_segmentation(
    segmentation: np.ndarray,
    labels_or_regions: LabelOrRegion | list[LabelOrRegion],
    background_label: int = 0,
) -> np.ndarray:
    """Set to background what lies outside the largest component of the union of the given labels.

    The name and module of this function must not change: files `postprocessing.pkl` refer to them.

    Args:
        segmentation: label map (Z, Y, X), or of any number of axes.
        labels_or_regions: a label, a tuple of labels, or a list of these.

    Returns:
        A modified copy. Voxels that share a corner are connected; if several components are largest, all stay.
    """
    regions = labels_or_regions if isinstance(labels_or_regions, list) else [labels_or_regions]
    mask = np.zeros(segmentation.shape, dtype=bool)
    for region in regions:
        mask |= region_or_label_to_mask(segmentation, region)
    changed = segmentation.copy()
    changed[mask & ~largest_component(mask)] = background_label
    return changed


def apply_postprocessing(
    segmentation: np.ndarray, pp_fns: Sequence[Callable[..., np.ndarray]], pp_fn_kwargs: Sequence[dict[str, Any]]
) -> np.ndarray:
    """Apply functions to a label map in order, each with its keyword arguments."""
    for function, kwargs in zip(pp_fns, pp_fn_kwargs, strict=True):
        segmentation = function(segmentation, **kwargs)
    return segmentation


def load_postprocess_save(
    segmentation_file: str,
    output_fname: str,
    image_reader_writer: BaseReaderWriter,
    pp_fns: Sequence[Callable[..., np.ndarray]],
    pp_fn_kwargs: Sequence[dict[str, Any]],
) -> None:
    """Apply functions to the segmentation in a file, and write the result in the same geometry."""
    segmentation, properties = read_seg(image_reader_writer, segmentation_file)
    image_reader_writer.write_seg(apply_postprocessing(segmentation[0], pp_fns, pp_fn_kwargs), output_fname, properties)


def determine_postprocessing(
    folder_predictions: str | os.PathLike,
    folder_ref: str | os.PathLike,
    plans_file_or_dict: JsonFile = None,
    dataset_json_file_or_dict: JsonFile = None,
    num_processes: int | None = None,
    keep_postprocessed_files: bool = True,
) -> tuple[Functions, list[dict[str, Any]]]:
    """Determine which largest components to keep; see `choose_steps` for the rule.

    Writes into `folder_predictions`: `postprocessing.pkl` with the steps; `postprocessing.json` with the steps and the
    scores before and after; `summary.json` if missing; and the folder `postprocessed`, with plans.json and
    dataset.json.

    Args:
        folder_predictions: segmentations, ideally of a full cross-validation.
        folder_ref: references with the same file names; those without a prediction are skipped.
        plans_file_or_dict, dataset_json_file_or_dict: None uses plans.json and dataset.json in `folder_predictions`.
        num_processes: maximum number of worker processes; None uses `nnUNet_def_n_proc`.
        keep_postprocessed_files: False writes no folder `postprocessed`, and removes an existing one.

    Returns:
        The functions and their keyword arguments, as `apply_postprocessing` takes them.

    Raises:
        DataError: there are no segmentations, one has no reference, or a pair does not match.
    """
    folder, references = os.fspath(folder_predictions), os.fspath(folder_ref)
    plans, dataset_json = descriptions(folder, plans_file_or_dict, dataset_json_file_or_dict)
    stored = format_of(plans, dataset_json)
    names = matched_files(references, folder, stored.file_ending, chill=True)
    cases = ScoredCases(names, folder, references, stored, num_processes)
    steps, before = choose_steps(cases, remove_all_but_largest_component_from_segmentation)
    if not os.path.isfile(os.path.join(folder, "summary.json")):
        save_summary_json(before, os.path.join(folder, "summary.json"))
    output = os.path.join(folder, "postprocessed")
    if keep_postprocessed_files:
        with replace_folder_when_complete(output) as temporary:
            write_descriptions(temporary, plans, dataset_json)
            after = _write_postprocessed(cases, steps, before, str(temporary))
            save_summary_json(_moved(after, output), os.path.join(temporary, "summary.json"))
    else:
        after = _score(cases, steps, None)
        shutil.rmtree(output, ignore_errors=True)
    functions, kwargs = [step.function for step in steps], [step.kwargs for step in steps]
    save_pickle((functions, kwargs), os.path.join(folder, "postprocessing.pkl"))
    write_json(_report(before, after, steps), os.path.join(folder, "postprocessing.json"))
    return functions, kwargs


def _write_postprocessed(cases: ScoredCases, steps: Sequence[Step], before: Summary, folder: str) -> Summary:
    if steps:
        return _score(cases, steps, folder)
    for name in cases.names:  # no step helps, so copying is enough
        copy_image(cases.stored.reader_writer, os.path.join(cases.predictions, name), os.path.join(folder, name))
    return before


def _score(cases: ScoredCases, steps: Sequence[Step], output_folder: str | None) -> Summary:
    return summary_of_cases(cases.run(metrics_after_steps, steps, output_folder), cases.stored.regions)


def _moved(summary: Summary, folder: str) -> Summary:
    """The same scores, with predictions of the same names in another folder."""
    cases = [
        {**case, "prediction_file": os.path.join(folder, os.path.basename(case["prediction_file"]))}
        for case in summary["metric_per_case"]
    ]
    return {**summary, "metric_per_case": cases}


def _report(before: Summary, after: Summary, steps: Sequence[Step]) -> dict[str, Any]:
    def means(summary: Summary) -> dict[str, Any]:
        of_regions = {label_or_region_to_key(region): scores for region, scores in summary["mean"].items()}
        return {"foreground_mean": summary["foreground_mean"], "mean": of_regions}

    return json_ready(
        {
            "input_folder": means(before),
            "postprocessed": means(after),
            "postprocessing_fns": [step.function.__name__ for step in steps],
            "postprocessing_kwargs": [step.kwargs for step in steps],
        }
    )


def load_postprocessing(path: str | os.PathLike) -> tuple[Functions, list[dict[str, Any]]]:
    """Read `postprocessing.pkl`, ours or upstream's, without executing code from it.

    Returns:
        The functions and their keyword arguments, as `apply_postprocessing` takes them.

    Raises:
        UsageError: the file does not exist.
        DataError: the file refers to a function other than the one of this module, or has other content.
    """
    remedy = (
        "give the postprocessing.pkl that nnUNetv2_find_best_configuration or nnUNetv2_determine_postprocessing wrote"
    )
    if not os.path.isfile(path):
        raise UsageError(f"There is no file {os.fspath(path)}; {remedy}")
    known = remove_all_but_largest_component_from_segmentation
    content = load_restricted(path, {(known.__module__, known.__name__): known})
    try:
        functions, kwargs = content
        is_valid = all(function is known for function in functions) and all(_is_call(call) for call in kwargs)
        is_valid = is_valid and len(functions) == len(kwargs)
    except (TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise DataError(f"{os.fspath(path)} does not hold postprocessing steps; {remedy}")
    return list(functions), [json_ready(call) for call in kwargs]


def _is_call(keywords: Any) -> bool:
    if not isinstance(keywords, dict):
        return False
    return "labels_or_regions" in keywords and set(keywords) <= {"labels_or_regions", "background_label"}


def apply_postprocessing_to_folder(
    input_folder: str | os.PathLike,
    output_folder: str | os.PathLike,
    pp_fns: Sequence[Callable[..., np.ndarray]],
    pp_fn_kwargs: Sequence[dict[str, Any]],
    plans_file_or_dict: JsonFile = None,
    dataset_json_file_or_dict: JsonFile = None,
    num_processes: int | None = None,
) -> None:
    """Apply functions to all segmentations in a folder and write the results with the same names to another folder.

    The output folder also receives plans.json and dataset.json.

    Args:
        pp_fns, pp_fn_kwargs: as returned by `determine_postprocessing`; functions must be importable by name.
        plans_file_or_dict, dataset_json_file_or_dict: None uses plans.json and dataset.json in `input_folder`.
        num_processes: maximum number of worker processes; None uses `nnUNet_def_n_proc`.

    Raises:
        UsageError: the output folder is the input folder.
        DataError: the input folder is missing or has no segmentations.
        PartialPredictionError: some cases failed; the others are complete, and `failures.json` lists the reasons.
    """
    folder, output = os.fspath(input_folder), os.fspath(output_folder)
    require_other_output(folder, output)
    plans, dataset_json = descriptions(folder, plans_file_or_dict, dataset_json_file_or_dict)
    stored = format_of(plans, dataset_json)
    names = _segmentations_in(folder, stored)
    os.makedirs(output, exist_ok=True)
    write_descriptions(output, plans, dataset_json)
    files = [os.path.join(folder, name) for name in names]
    steps = (stored.reader_writer, pp_fns, pp_fn_kwargs)
    jobs = {
        name.removesuffix(stored.file_ending): (file, os.path.join(output, name), *steps)
        for file, name in zip(files, names, strict=True)
    }
    num_workers = num_processes_for(files, num_processes)
    write_every_case(load_postprocess_save, jobs, output, stored.file_ending, num_workers)
    logger.info("Postprocessed %s into %s", counted(len(names), "case"), output)


def require_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        raise DataError(f"There is no folder {folder}; give the folder of the segmentations (-i)")


def require_other_output(folder: str, output: str) -> None:
    require_folder(folder)
    if os.path.realpath(folder) == os.path.realpath(output):
        raise UsageError(
            f"The segmentations are in {folder}, and would be overwritten by the postprocessed ones; give another "
            f"output folder (-o)"
        )


def _segmentations_in(folder: str, stored: SegmentationFormat) -> list[str]:
    names = [path.name for path in visible_files(folder, stored.file_ending)]
    if not names:
        raise DataError(f"There is no segmentation (*{stored.file_ending}) in {folder}")
    return names


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Select the largest component of a boolean mask of any number of axes.

    Voxels that touch at a face, an edge or a corner are connected. If several components are largest, all stay.
    """
    from scipy import ndimage

    kept = np.zeros(mask.shape, dtype=bool)
    # Labelling only the bounding box is much faster for small structures in large images.
    box = _bounding_box(mask)
    if box is None:
        return kept
    components, num_components = ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))
    if num_components == 1:
        return mask.copy()
    sizes = np.bincount(components.ravel())
    sizes[0] = 0  # background
    kept[box] = (sizes == sizes.max())[components]
    return kept


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (positions,) = np.nonzero(mask.any(axis=others))
        if not positions.size:
            return None
        box.append(slice(positions[0], positions[-1] + 1))
    return tuple(box)
