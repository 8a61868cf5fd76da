"""Compare trained models and their ensembles by cross-validation, and report how to predict with the best."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import read_json, replace_folder_when_complete, write_json
from nnunetv2.ensembling.ensemble import ensemble_crossvalidations
from nnunetv2.ensembling.prediction_files import require_same_labels
from nnunetv2.errors import UsageError
from nnunetv2.evaluation.accumulate_cv_results import accumulate_cv_results, score_folder
from nnunetv2.evaluation.best_configuration_arguments import (
    DEFAULT_CONFIGURATIONS,
    DEFAULT_FOLDS,
    DEFAULT_PLANS,
    DEFAULT_TRAINER,
    build_accumulate_parser,
    build_find_best_parser,
)
from nnunetv2.evaluation.crossval_folds import (
    folds_without_checkpoint,
    ground_truth_folder,
    require_all_probabilities,
    require_same_cases,
    training_command,
    validated_segmentations,
)
from nnunetv2.evaluation.inference_instructions import generate_inference_command, print_inference_instructions
from nnunetv2.evaluation.segmentation_format import description, format_of_folder
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_path_utilities import (
    convert_ensemble_folder_to_model_identifiers_and_folds,
    convert_identifier_to_trainer_plans_config,
    folds_tuple_to_string,
    get_ensemble_name,
    get_output_folder,
)

__all__ = [
    "accumulate_crossval_results_entry_point",
    "default_trained_models",
    "dumb_trainer_config_plans_to_trained_models_dict",
    "filter_available_models",
    "find_best_configuration",
    "find_best_configuration_entry_point",
    "generate_inference_command",
    "print_inference_instructions",
]

logger = logging.getLogger(__name__)

TrainedModel = dict[str, str]


def dumb_trainer_config_plans_to_trained_models_dict(
    trainers: Sequence[str], configs: Sequence[str], plans: Sequence[str]
) -> tuple[TrainedModel, ...]:
    """All combinations, as dictionaries with the keys plans, configuration and trainer."""
    return tuple(
        {"plans": identifier, "configuration": configuration, "trainer": trainer}
        for trainer in trainers
        for configuration in configs
        for identifier in plans
    )


default_trained_models = dumb_trainer_config_plans_to_trained_models_dict(
    [DEFAULT_TRAINER], DEFAULT_CONFIGURATIONS, [DEFAULT_PLANS]
)


def filter_available_models(model_dict: Sequence[TrainedModel], dataset_name_or_id: int | str) -> list[TrainedModel]:
    """Drop models whose plans lack the configuration, such as 3d_lowres for small images.

    Raises:
        UsageError: a model is not trained, or none is left.
    """
    available: list[TrainedModel] = []
    for model in model_dict:
        folder = _folder_of(dataset_name_or_id, model)
        if model["configuration"] not in _configurations_of_plans(folder, dataset_name_or_id, model):
            logger.info("The plans %s have no configuration %s; skipping it", model["plans"], model["configuration"])
        elif not os.path.isdir(folder):
            raise UsageError(
                f"The model {os.path.basename(folder)} is not trained, there is no {folder}; train each fold, for "
                f"example {training_command(folder, 0, '--npz')}, or name the models to compare with -c, -tr, -p or -m"
            )
        elif model not in available:
            available.append(dict(model))
    if not available:
        raise UsageError("No model is left to compare; name configurations that the plans have (-c)")
    return available


def _folder_of(dataset_name_or_id: int | str, model: TrainedModel) -> str:
    return get_output_folder(dataset_name_or_id, model["trainer"], model["plans"], model["configuration"])


def _require_configurations(models: Sequence[TrainedModel], dataset_name_or_id: int | str) -> None:
    """Reject models whose plans lack the configuration."""
    for model in models:
        there = _configurations_of_plans(_folder_of(dataset_name_or_id, model), dataset_name_or_id, model)
        if model["configuration"] not in there:
            raise UsageError(
                f"The plans {model['plans']} have no configuration {model['configuration']} (-m); they have "
                f"{', '.join(there)}"
            )


def _configurations_of_plans(folder: str, dataset_name_or_id: int | str, model: TrainedModel) -> list[str]:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    candidates = [Path(folder, "plans.json")]
    if nnUNet_preprocessed.is_set():
        dataset = maybe_convert_to_dataset_name(dataset_name_or_id)
        candidates.append(Path(nnUNet_preprocessed, dataset, f"{model['plans']}.json"))
    for path in candidates:
        if path.is_file():
            return PlansManager(path).available_configurations
    raise UsageError(
        f"There are no plans {model['plans']!r} of this dataset: neither {' nor '.join(map(str, candidates))} exists; "
        f"check -p and the environment variables nnUNet_results and nnUNet_preprocessed"
    )


def find_best_configuration(
    dataset_name_or_id: int | str,
    allowed_trained_models: Sequence[TrainedModel] = default_trained_models,
    allow_ensembling: bool = True,
    num_processes: int | None = None,
    overwrite: bool = True,
    folds: Sequence[int | str] = DEFAULT_FOLDS,
    strict: bool = False,
) -> dict[str, Any]:
    """Score models and all ensembles of two by cross-validation; determine postprocessing and commands for the best.

    All inputs are checked before any computation. Writes `crossval_results_folds_X` into the model folders, and
    `ensembles/`, `inference_information.json` and `inference_instructions.txt` into the results folder of the dataset.
    The score is the mean foreground Dice; ties favour earlier models, and single models over ensembles.

    Args:
        allowed_trained_models: dictionaries with the keys plans, configuration and trainer. Any architectures can be
            combined if they predict the same labels.
        num_processes: maximum number of worker processes; None uses `nnUNet_def_n_proc`.
        overwrite: False keeps and completes the results of an earlier call.
        strict: kept for upstream's callers and ignored: an untrained model is always rejected.

    Returns:
        The content of `inference_information.json`.

    Raises:
        UsageError: a model is not trained, or none is left.
        DataError: a fold was not validated, or without probabilities; models differ in labels or validated cases.
    """
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

    dataset = maybe_convert_to_dataset_name(dataset_name_or_id)
    models = filter_available_models(allowed_trained_models, dataset)
    folders = [_folder_of(dataset, model) for model in models]
    is_ensembled = allow_ensembling and len(folders) > 1
    _require_comparable(folders, folds, is_ensembled)
    _warn_of_missing_checkpoints(folders, folds)
    for model in models:  # fail early if a cascade stage is not trained, not after all the computation
        generate_inference_command(dataset, model["configuration"], model["plans"], model["trainer"], folds)

    sources = {os.path.basename(folder): _accumulated(folder, folds, num_processes, overwrite) for folder in folders}
    if is_ensembled:
        for pair in combinations(folders, 2):
            source = _ensembled(dataset, pair, folds, num_processes, overwrite)
            sources[os.path.basename(source)] = source
    results = {name: _mean_dice(source) for name, source in sources.items()}
    # NaN compares as false with everything, so max would depend on the order.
    best = max(results, key=lambda name: -math.inf if math.isnan(results[name]) else results[name])
    for name, result in results.items():
        logger.info("%s: mean Dice %.5f%s", name, result, " (best)" if name == best else "")

    determine_postprocessing(sources[best], ground_truth_folder(dataset), num_processes=num_processes)
    information = {
        "folds": list(folds),
        "dataset_name_or_id": dataset_name_or_id,
        "considered_models": models,
        "ensembling_allowed": allow_ensembling,
        "all_results": results,
        "best_model_or_ensemble": _describe_best(best, sources[best], results[best]),
    }
    write_json(information, os.path.join(nnUNet_results, dataset, "inference_information.json"))
    instructions = os.path.join(nnUNet_results, dataset, "inference_instructions.txt")
    print_inference_instructions(information, instructions)
    return information


def _require_comparable(folders: Sequence[str], folds: Sequence[int | str], is_ensembled: bool) -> None:
    descriptions = {folder: description(folder, "dataset.json") for folder in folders}
    require_same_labels(descriptions)
    endings = {folder: content["file_ending"] for folder, content in descriptions.items()}
    require_same_cases({folder: validated_segmentations(folder, folds, ending) for folder, ending in endings.items()})
    if is_ensembled:
        for folder, ending in endings.items():
            require_all_probabilities(folder, folds, ending)


def _warn_of_missing_checkpoints(folders: Sequence[str], folds: Sequence[int | str]) -> None:
    for folder in folders:
        lacking = folds_without_checkpoint(folder, folds)
        if lacking:
            logger.warning(
                "%s has no checkpoint in fold %s, which can be scored but cannot predict new images; train it without "
                "--disable_checkpointing",
                folder,
                ", ".join(map(str, lacking)),
            )


def _accumulated(folder: str, folds: Sequence[int | str], num_processes: int | None, overwrite: bool) -> str:
    """Collect and score the validations of all folds; return their folder."""
    merged = os.path.abspath(os.path.join(folder, f"crossval_results_folds_{folds_tuple_to_string(folds)}"))
    accumulate_cv_results(folder, merged, folds, num_processes, overwrite)
    return merged


def _ensembled(
    dataset: str, folders: Sequence[str], folds: Sequence[int | str], num_processes: int | None, overwrite: bool
) -> str:
    """Average and score the validations of two models; return their folder."""
    name = get_ensemble_name(*folders, folds)
    target = os.path.abspath(os.path.join(nnUNet_results, dataset, "ensembles", name))
    references = ground_truth_folder(dataset)
    if overwrite:
        with replace_folder_when_complete(target) as temporary:
            ensemble_crossvalidations(folders, temporary, folds, num_processes)
            stored = format_of_folder(str(temporary))
            score_folder(temporary, references, stored, num_processes, final_folder=target)
    else:
        ensemble_crossvalidations(folders, target, folds, num_processes, overwrite=False)
        score_folder(target, references, format_of_folder(target), num_processes)
    return target


def _mean_dice(folder: str) -> float:
    return read_json(os.path.join(folder, "summary.json"))["foreground_mean"]["Dice"]


def _describe_best(name: str, source: str, result: float) -> dict[str, Any]:
    is_ensemble = name.startswith("ensemble___")
    identifiers = convert_ensemble_folder_to_model_identifiers_and_folds(name)[0] if is_ensemble else [name]
    chosen = [convert_identifier_to_trainer_plans_config(identifier) for identifier in identifiers]
    return {
        "result_on_crossval_pre_pp": result,
        "result_on_crossval_post_pp": _mean_dice(os.path.join(source, "postprocessed")),
        "postprocessing_file": os.path.join(source, "postprocessing.pkl"),
        "some_plans_file": os.path.join(source, "plans.json"),
        "selected_model_or_models": [
            {"configuration": configuration, "trainer": trainer, "plans_identifier": plans}
            for trainer, plans, configuration in chosen
        ],
    }


@command
def find_best_configuration_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_find_best_parser().parse_args(argv)
    models: Sequence[Mapping[str, str]]
    if args.m is None:
        models = dumb_trainer_config_plans_to_trained_models_dict(args.tr, args.c, args.p)
    else:
        names = [convert_identifier_to_trainer_plans_config(model) for model in args.m]
        models = [{"plans": plans, "configuration": configuration, "trainer": tr} for tr, plans, configuration in names]
        _require_configurations(models, args.dataset_name_or_id)
    find_best_configuration(
        maybe_convert_to_dataset_name(args.dataset_name_or_id),
        models,
        allow_ensembling=not args.disable_ensembling,
        num_processes=args.np,
        overwrite=not args.no_overwrite,
        folds=args.f,
    )


@command
def accumulate_crossval_results_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_accumulate_parser().parse_args(argv)
    model = get_output_folder(args.dataset_name_or_id, args.tr, args.p, args.c)
    if not os.path.isdir(model):
        raise UsageError(f"There is no model {model}; check the dataset, -c, -tr, -p and nnUNet_results")
    merged = args.o or os.path.join(model, f"crossval_results_folds_{folds_tuple_to_string(args.f)}")
    if args.o is not None and os.path.isdir(merged) and os.listdir(merged):
        raise UsageError(f"The output folder {merged} is not empty, and would be replaced; name a new one (-o)")
    accumulate_cv_results(model, merged, args.f)
    logger.info("Mean Dice %.5f; see %s", _mean_dice(merged), os.path.join(merged, "summary.json"))
