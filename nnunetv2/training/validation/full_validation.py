"""Predicts whole validation cases with the trained network, exports and scores them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dinov3.utils.processes.process_group import rank_and_world_size, wait_for_all
from nnunetv2.errors import NNUNetError
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.inference.case_export import CaseExporter, ExportSetting
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.logging.training_log import duration_in_words, time_left
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

if TYPE_CHECKING:
    from nnunetv2.preprocessing.stored_cases import nnUNetBaseDataset

logger = logging.getLogger(__name__)

CASES_BETWEEN_BARRIERS = 20  # keeps the ranks within the communication time-out


@dataclass(frozen=True)
class ValidationSetting:
    """Inputs and output folders of a validation."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict
    preprocessed_folder_base: str
    """contains gt_segmentations and, for cascades, the preprocessed cases of the next stages"""
    model_folder: str
    """for cascades, receives predicted_next_stage with one folder per next stage"""
    output_folder: str
    """receives one segmentation per case and summary.json"""
    trainer_name: str
    device: torch.device
    mirror_axes: tuple[int, ...] | None = None
    """axes along which predictions may be mirrored; None: no mirroring"""
    save_probabilities: bool = False
    num_processes: int = 1


def make_exporter(setting: ValidationSetting, num_cases: int) -> CaseExporter:
    """Creates the exporter of validation cases; the first error stops the validation and names the case."""
    num_processes = min(setting.num_processes, num_cases)
    export_setting = ExportSetting(
        setting.plans_manager,
        setting.configuration_manager,
        setting.dataset_json,
        setting.save_probabilities,
        num_processes if num_processes > 1 else 0,
        device=setting.device if setting.device.type == "cuda" else None,
    )
    return CaseExporter(
        export_setting, _name_validation_case, num_waiting=num_processes, workers_at_once=True, fail_early=True
    )


@contextmanager
def _name_validation_case(case: str) -> Iterator[None]:
    try:
        yield
    except NNUNetError as err:
        raise type(err)(f"Validation case {case}: {err}") from err
    except Exception as err:
        raise RuntimeError(f"Validation case {case} could not be exported: {err}") from err


def share_of_cases(identifiers: Sequence[str], rank: int, world_size: int) -> tuple[list[str], set[int]]:
    """Returns the cases of one process, and the positions after which all processes synchronise.

    Every process has at least `len(identifiers) // world_size` cases; only positions that all of them reach are used.
    """
    reached_by_all = len(identifiers) // world_size
    barriers = set(range(CASES_BETWEEN_BARRIERS - 1, reached_by_all - 1, CASES_BETWEEN_BARRIERS))
    return list(identifiers[rank::world_size]), barriers if world_size > 1 else set()


def make_predictor(network: nn.Module, setting: ValidationSetting) -> nnUNetPredictor:
    """Creates a predictor for the trained network, with nnU-Net's tiling and mirroring for validation."""
    if isinstance(network, DistributedDataParallel):
        network = network.module  # without DDP: processes predict different numbers of tiles and must not synchronise
    predictor = nnUNetPredictor(device=setting.device, allow_tqdm=False)
    predictor.manual_initialization(
        network,
        setting.plans_manager,
        setting.configuration_manager,
        None,
        setting.dataset_json,
        setting.trainer_name,
        setting.mirror_axes,
    )
    return predictor


def validate(
    network: nn.Module,
    open_cases: Callable[[list[str]], nnUNetBaseDataset],
    identifiers: Sequence[str],
    setting: ValidationSetting,
    metric_log: MetaLogger,
    report: Callable[[str], None] = logger.info,
) -> None:
    """Predicts the cases, distributed over the processes; then the first process scores all of them.

    Args:
        network: network in eval mode with a single output.
        open_cases: opens the preprocessed cases of the given identifiers.
        metric_log: receives the final scores.
        report: receives progress lines.
    """
    rank, world_size = rank_and_world_size()
    own, barriers = share_of_cases(identifiers, rank, world_size)
    predictor = make_predictor(network, setting)
    seconds = predict_validation_cases(predictor, open_cases(own), setting, barriers=barriers, report=report)
    wait_for_all()
    if rank == 0:
        metrics = evaluate_validation(setting)
        if seconds:
            metric_log.log_summary("final_val/seconds_per_case", median(seconds))
        log_metrics(metrics, metric_log)
        report(f"Mean Validation Dice: {metrics['foreground_mean']['Dice']}")


def predict_validation_cases(
    predictor: nnUNetPredictor,
    dataset: nnUNetBaseDataset,
    setting: ValidationSetting,
    *,
    barriers: frozenset[int] | set[int] = frozenset(),
    report: Callable[[str], None] = logger.info,
) -> list[float]:
    """Predicts every case of `dataset` and writes its segmentation in the geometry of the original image.

    Args:
        predictor: initialised, with the network to validate.
        dataset: preprocessed cases; of a cascade, with the segmentations of the previous stage.
        barriers: positions after which to wait for the other processes.
        report: receives one line per case.

    Returns:
        Seconds per prediction, including tiles and mirroring, excluding reading and export.
    """
    os.makedirs(setting.output_folder, exist_ok=True)
    identifiers = list(dataset.identifiers)
    durations: list[float] = []
    prediction_seconds: list[float] = []
    with make_exporter(setting, len(identifiers)) as exporter:
        for position, case in enumerate(identifiers):
            remaining = time_left(durations, len(identifiers) - position)
            eta = f", about {duration_in_words(remaining)} left" if durations else ""
            report(f"Predicting {case} ({position + 1} of {len(identifiers)}{eta})")
            started = time.monotonic()
            image, properties = load_network_input(dataset, case, setting)
            loaded = time.monotonic()
            logits = predictor.predict_sliding_window_return_logits(image)
            prediction_seconds.append(time.monotonic() - loaded)
            exporter.write(case, logits, properties, os.path.join(setting.output_folder, case))
            export_to_next_stages(exporter, case, logits, properties, setting, report)
            durations.append(time.monotonic() - started)
            if position in barriers:
                wait_for_all()
        exporter.results()
    return prediction_seconds


def load_network_input(
    dataset: nnUNetBaseDataset, case: str, setting: ValidationSetting
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Loads the image of a case (C, *spatial); in a cascade, with the previous stage's labels as one-hot channels."""
    image, _, previous, properties = dataset.load_case(case)
    image = np.array(image[:])  # reads the stored array; torch requires writable memory
    if previous is not None:
        labels = setting.plans_manager.get_label_manager(setting.dataset_json).foreground_labels
        image = np.vstack((image, convert_labelmap_to_one_hot(previous[:], labels, output_dtype=image.dtype)))
    return torch.from_numpy(image), properties


def export_to_next_stages(
    exporter: CaseExporter,
    case: str,
    logits: torch.Tensor,
    properties: dict[str, Any],
    setting: ValidationSetting,
    report: Callable[[str], None],
) -> None:
    """Writes the segmentation of a case in the grid of each next stage of a cascade.

    A case that is not preprocessed for a next stage is reported and skipped.
    """
    from nnunetv2.preprocessing.stored_cases import infer_dataset_class  # imports blosc2

    for stage in setting.configuration_manager.next_stage_names or ():
        stage_configuration = setting.plans_manager.get_configuration(stage)
        folder = os.path.join(setting.preprocessed_folder_base, stage_configuration.data_identifier)
        try:
            dataset_class = infer_dataset_class(folder)
            shape = dataset_class(folder, [case]).load_case(case)[0].shape[1:]
        except (FileNotFoundError, NNUNetError) as err:
            report(f"No input for next stage {stage} from case {case}: {err}; preprocess {stage} first, then use --val")
            continue
        target = os.path.join(setting.model_folder, "predicted_next_stage", stage, case)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        exporter.write_for_next_stage(case, logits, properties, target, shape=shape, dataset_class=dataset_class)


def evaluate_validation(setting: ValidationSetting) -> dict[str, Any]:
    """Evaluates the predictions in the output folder against the ground truth; writes and returns summary.json."""
    labels = setting.plans_manager.get_label_manager(setting.dataset_json)
    return compute_metrics_on_folder(
        os.path.join(setting.preprocessed_folder_base, "gt_segmentations"),
        setting.output_folder,
        os.path.join(setting.output_folder, "summary.json"),
        setting.plans_manager.image_reader_writer_class(),
        setting.dataset_json["file_ending"],
        labels.foreground_regions if labels.has_regions else labels.foreground_labels,
        labels.ignore_label,
        num_processes=setting.num_processes,
        chill=True,
    )


def log_metrics(metrics: dict[str, Any], log: MetaLogger) -> None:
    """Forwards the final Dice scores to external loggers."""
    for label, scores in metrics["mean"].items():
        log.log_summary(f"final_val/class_{label}_dice", scores["Dice"])
    log.log_summary("final_val/foreground_dice", metrics["foreground_mean"]["Dice"])
