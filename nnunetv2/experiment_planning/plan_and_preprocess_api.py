"""Python API for fingerprints, plans and preprocessing of datasets."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import UsageError
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.thin_structures_advice import advise_on_thin_structures
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.imageio.companions import copy_image
from nnunetv2.imageio.reader_writer_registry import reader_of_training_cases
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.case_identifiers import check_case_identifier
from nnunetv2.utilities.class_lookup import find_by_name
from nnunetv2.utilities.crossval_split import Split, SplitRule
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from nnunetv2.utilities.file_names import check_name
from nnunetv2.utilities.plans_handling.plans_files import listed_plans, require_plans_name
from nnunetv2.utilities.splits_file import load_or_create_splits
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

logger = logging.getLogger(__name__)

DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")


def extract_fingerprint_dataset(
    dataset_id: int,
    fingerprint_extractor_class: type[DatasetFingerprintExtractor] = DatasetFingerprintExtractor,
    num_processes: int | None = None,
    check_dataset_integrity: bool = False,
    clean: bool = True,
    verbose: bool = True,
    show_progress_bar: bool = True,
    *,
    allow_geometry_mismatch: bool = False,
    check_labels: bool = True,
) -> dict[str, Any]:
    """Extracts the fingerprint of a dataset, writes it to the preprocessed folder and returns it.

    Args:
        dataset_id: for example 4.
        fingerprint_extractor_class: class of the extractor.
        num_processes: upper limit for worker processes; by default `nnUNet_def_n_proc` or 8.
        check_dataset_integrity: verify the raw dataset first.
        clean: recompute an existing fingerprint.
        verbose: log each case.
        show_progress_bar: draw a progress bar on a terminal.
        allow_geometry_mismatch: see `verify_dataset_integrity`.
        check_labels: reject labels that dataset.json does not name.
    """
    dataset_name = convert_id_to_dataset_name(dataset_id)
    logger.info(dataset_name)
    num_processes = num_processes or get_default_num_processes()
    if check_dataset_integrity:
        verify_dataset_integrity(
            os.path.join(nnUNet_raw, dataset_name), num_processes, allow_geometry_mismatch=allow_geometry_mismatch
        )
    extractor = fingerprint_extractor_class(dataset_id, num_processes, verbose=verbose)
    extractor.show_progress_bar = show_progress_bar
    extractor.check_labels = check_labels
    extractor.warn_of_suspicious_cases = not check_dataset_integrity  # which has warned of them
    return extractor.run(overwrite_existing=clean)


def extract_fingerprints(
    dataset_ids: Sequence[int],
    fingerprint_extractor_class_name: str = "DatasetFingerprintExtractor",
    num_processes: int | None = None,
    check_dataset_integrity: bool = False,
    clean: bool = True,
    verbose: bool = True,
    show_progress_bar: bool = True,
    *,
    allow_geometry_mismatch: bool = False,
    check_labels: bool = True,
) -> None:
    """Calls `extract_fingerprint_dataset` for several datasets; the class is resolved by name."""
    extractor_class = find_by_name("fingerprint extractor", fingerprint_extractor_class_name)
    for dataset_id in dataset_ids:
        extract_fingerprint_dataset(
            dataset_id,
            extractor_class,
            num_processes,
            check_dataset_integrity,
            clean,
            verbose,
            show_progress_bar,
            allow_geometry_mismatch=allow_geometry_mismatch,
            check_labels=check_labels,
        )


def plan_experiment_dataset(
    dataset_id: int,
    experiment_planner_class: type[ExperimentPlanner] = ExperimentPlanner,
    gpu_memory_target_in_gb: float | None = None,
    preprocess_class_name: str = "DefaultPreprocessor",
    overwrite_target_spacing: Sequence[float] | None = None,
    overwrite_plans_name: str | None = None,
) -> tuple[dict[str, Any], str]:
    """Plans one dataset and returns the plans and their name.

    Args:
        dataset_id: for example 4.
        experiment_planner_class: class of the planner.
        gpu_memory_target_in_gb: overrides the planner's own target.
        preprocess_class_name: preprocessor to record in the plans.
        overwrite_target_spacing: mm per axis for `3d_fullres`; overrides the planned spacing.
        overwrite_plans_name: overrides the planner's name for its plans.
    """
    given = {"plans_name": overwrite_plans_name, "gpu_memory_target_in_gb": gpu_memory_target_in_gb}
    planner = experiment_planner_class(
        dataset_id,
        preprocessor_name=preprocess_class_name,
        overwrite_target_spacing=None if overwrite_target_spacing is None else _numbers(overwrite_target_spacing),
        suppress_transpose=False,
        **{name: value for name, value in given.items() if value is not None},
    )
    plans = planner.plan_experiment()
    advise_on_thin_structures(plans, planner.dataset_json, planner.dataset)
    return plans, planner.plans_identifier


def require_planning_names(
    experiment_planner_class_name: str, preprocess_class_name: str, overwrite_plans_name: str | None
) -> None:
    """Rejects misspelt names before a fingerprint is extracted, which can take long.

    Raises:
        UsageError: a class is unknown, or the plans name is invalid.
    """
    find_by_name("experiment planner", experiment_planner_class_name)
    find_by_name("preprocessor", preprocess_class_name)
    if overwrite_plans_name is not None:
        require_plans_name(overwrite_plans_name)


def plan_experiments(
    dataset_ids: Sequence[int],
    experiment_planner_class_name: str = "ExperimentPlanner",
    gpu_memory_target_in_gb: float | None = None,
    preprocess_class_name: str = "DefaultPreprocessor",
    overwrite_target_spacing: Sequence[float] | None = None,
    overwrite_plans_name: str | None = None,
) -> str | None:
    """Calls `plan_experiment_dataset` for several datasets and returns the name of the plans.

    The planner class is resolved by name; see `plan_experiment_dataset` for the other arguments.

    Raises:
        UsageError: see `require_planning_names`; existing plans are not changed.
    """
    require_planning_names(experiment_planner_class_name, preprocess_class_name, overwrite_plans_name)
    if experiment_planner_class_name == "ExperimentPlanner":
        logger.info("ExperimentPlanner is nnU-Net's first planner; nnUNetPlannerResEncM, -L and -XL do better (-pl)")
    planner_class = find_by_name("experiment planner", experiment_planner_class_name)
    plans_name = None
    for dataset_id in dataset_ids:
        _, plans_name = plan_experiment_dataset(
            dataset_id,
            planner_class,
            gpu_memory_target_in_gb,
            preprocess_class_name,
            overwrite_target_spacing,
            overwrite_plans_name,
        )
    return plans_name


def split_dataset(dataset_id: int, rule: SplitRule) -> list[Split]:
    """Creates the splits of a dataset before its first training would, or checks that existing ones follow the rule.

    Raises: see `load_or_create_splits`.
    """
    dataset_name = convert_id_to_dataset_name(dataset_id)
    cases = get_filenames_of_train_images_and_targets(os.path.join(nnUNet_raw, dataset_name))
    return load_or_create_splits(Path(nnUNet_preprocessed, dataset_name), list(cases), rule)


def preprocess_dataset(
    dataset_id: int,
    plans_identifier: str = "nnUNetPlans",
    configurations: Sequence[str] = DEFAULT_CONFIGURATIONS,
    num_processes: int | Sequence[int] = (8, 4, 8),
    verbose: bool = False,
    show_progress_bar: bool = True,
) -> None:
    """Preprocesses the training cases for each configuration and copies the reference segmentations.

    Args:
        dataset_id: for example 4.
        plans_identifier: name of the plans file, without ending.
        configurations: configurations to preprocess; those missing in the plans are skipped.
        num_processes: one number for all configurations, or one for each.
        verbose: passed to the preprocessor.
        show_progress_bar: draw a progress bar on a terminal.

    Raises:
        UsageError: the plans have none of the configurations, or the numbers of processes are neither one nor one per
            configuration.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    processes = [num_processes] if isinstance(num_processes, int) else list(num_processes)
    if len(processes) == 1:
        processes *= len(configurations)
    if len(processes) != len(configurations):
        raise UsageError(
            f"{len(processes)} numbers of processes were given for {len(configurations)} configurations "
            f"({', '.join(configurations)}); give one for all, or one for each"
        )
    dataset_name = convert_id_to_dataset_name(dataset_id)
    check_name(plans_identifier, "plans", UsageError)
    plans_file = Path(nnUNet_preprocessed, dataset_name, f"{plans_identifier}.json")
    if not plans_file.is_file():
        raise UsageError(
            f"There is no {plans_file}; run nnUNetv2_plan_experiment first, or name other plans "
            f"(there: {listed_plans(plans_file.parent)})"
        )
    plans = PlansManager(str(plans_file))
    if not set(configurations) & set(plans.available_configurations):
        raise UsageError(
            f"{plans_file.name} has none of the configurations {', '.join(configurations)}; "
            f"it has {', '.join(plans.available_configurations)}"
        )
    for configuration, num in zip(configurations, processes, strict=True):
        if configuration not in plans.available_configurations:
            logger.info("%s has no configuration %s; it is skipped", plans_file.name, configuration)
            continue
        logger.info("Preprocessing %s, configuration %s", dataset_name, configuration)
        preprocessor = plans.get_configuration(configuration).preprocessor_class(verbose=verbose)
        preprocessor.show_progress_bar = show_progress_bar
        preprocessor.run(dataset_id, configuration, plans_identifier, num_processes=num)
    _copy_references(dataset_name)


def preprocess(
    dataset_ids: Sequence[int],
    plans_identifier: str = "nnUNetPlans",
    configurations: Sequence[str] = DEFAULT_CONFIGURATIONS,
    num_processes: int | Sequence[int] = (8, 4, 8),
    verbose: bool = False,
    show_progress_bar: bool = True,
) -> None:
    """Calls `preprocess_dataset` for several datasets."""
    for dataset_id in dataset_ids:
        preprocess_dataset(dataset_id, plans_identifier, configurations, num_processes, verbose, show_progress_bar)


def _copy_references(dataset_name: str) -> None:
    """Copies label files to `gt_segmentations`, so that validation works without the raw data."""
    raw_folder = os.path.join(nnUNet_raw, dataset_name)
    dataset_json = read_dataset_json(os.path.join(raw_folder, "dataset.json"))
    references = Path(nnUNet_preprocessed, dataset_name, "gt_segmentations")
    references.mkdir(parents=True, exist_ok=True)
    cases = get_filenames_of_train_images_and_targets(raw_folder, dataset_json)
    reader = reader_of_training_cases(dataset_json, cases)()
    for identifier, case in cases.items():
        target = references / (check_case_identifier(identifier) + dataset_json["file_ending"])
        copy_image(reader, case["label"], target, only_if_newer=True)


def _numbers(texts: Sequence[float | str]) -> list[float]:
    try:
        return [float(text) for text in texts]
    except ValueError as err:
        raise UsageError(f"The target spacing is {' '.join(map(str, texts))}; it must be three numbers (mm)") from err
