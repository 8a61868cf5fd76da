"""Collect the validations of all folds in one folder and score them together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinov3.utils.atomic_files import replace_folder_when_complete
from nnunetv2.errors import UsageError
from nnunetv2.evaluation.crossval_folds import Fold, ground_truth_folder, validated_segmentations
from nnunetv2.evaluation.segmentation_format import SegmentationFormat, description, format_of, write_descriptions
from nnunetv2.imageio.companions import copy_image

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter


def accumulate_cv_results(
    trained_model_folder: str | os.PathLike,
    merged_output_folder: str | os.PathLike,
    folds: Sequence[Fold],
    num_processes: int | None = None,
    overwrite: bool = True,
) -> None:
    """Copy the validation segmentations of a model's folds into one folder and write their summary.json.

    The folder also receives the model's plans.json and dataset.json. A full cross-validation predicts each training
    case once, so the means are over all cases rather than over fold means.

    Args:
        trained_model_folder: contains `fold_X/validation` for all `folds`.
        merged_output_folder: created if missing.
        num_processes: maximum number of worker processes; None uses `nnUNet_def_n_proc`.
        overwrite: replace the folder. If False, existing cases are kept, missing ones are added, and scores are
            recomputed only if cases were added.

    Raises:
        UsageError: the output folder is part of the model or contains it.
        DataError: a fold was not validated, a case is in two folds, or a segmentation has no reference.
    """
    model, merged = os.fspath(trained_model_folder), os.fspath(merged_output_folder)
    _require_harmless_output(model, merged)
    plans, dataset_json = description(model, "plans.json"), description(model, "dataset.json")
    references = ground_truth_folder(plans["dataset_name"])
    stored = format_of(plans, dataset_json)
    segmentations = validated_segmentations(model, folds, stored.file_ending)

    def fill(folder: str | os.PathLike) -> None:
        write_descriptions(folder, plans, dataset_json)
        num_new = _copy_missing(segmentations, folder, stored.file_ending, stored.reader_writer)
        if num_new or not os.path.isfile(os.path.join(folder, "summary.json")):
            score_folder(folder, references, stored, num_processes, final_folder=merged)

    if overwrite:
        with replace_folder_when_complete(merged) as temporary:
            fill(temporary)
    else:
        os.makedirs(merged, exist_ok=True)
        fill(merged)


def score_folder(
    folder: str | os.PathLike,
    references: str,
    stored: SegmentationFormat,
    num_processes: int | None = None,
    *,
    final_folder: str | os.PathLike | None = None,
) -> None:
    """Score the segmentations in a folder and write summary.json there.

    Args:
        references: folder of the references.
        final_folder: later location of the folder, used for the paths in the summary.
    """
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, save_summary_json

    summary = compute_metrics_on_folder(
        references,
        os.fspath(folder),
        None,
        stored.reader_writer,
        stored.file_ending,
        stored.regions,
        stored.ignore_label,
        num_processes,
    )
    for case in summary["metric_per_case"]:
        name = os.path.basename(case["prediction_file"])
        case["prediction_file"] = os.path.join(folder if final_folder is None else final_folder, name)
    save_summary_json(summary, os.path.join(folder, "summary.json"))


def _require_harmless_output(model: str, merged: str) -> None:
    model_path, merged_path = Path(model).resolve(), Path(merged).resolve()
    folds = [merged_path, *merged_path.parents]
    if merged_path in (model_path, *model_path.parents) or any(
        path.name.startswith("fold_") and path.parent == model_path for path in folds
    ):
        raise UsageError(
            f"The results of {model} cannot go to {merged}, whose content would be replaced: it holds the trained "
            f"model or a part of it; choose another folder (-o)"
        )


def _copy_missing(
    segmentations: Mapping[str, str], folder: str | os.PathLike, file_ending: str, reader: BaseReaderWriter
) -> int:
    """Copy the files that do not exist yet; return their number."""
    targets = {source: Path(folder, case + file_ending) for case, source in segmentations.items()}
    missing = {source: target for source, target in targets.items() if not target.is_file()}
    for source, target in missing.items():
        copy_image(reader, source, target)
    return len(missing)
