"""Predict whole validation cases with the network in training, export them, and score them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunetv2.errors import NNUNetError
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.inference.export_prediction import export_prediction_from_logits, resample_and_save
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.stored_cases import infer_dataset_class, nnUNetBaseDataset
from nnunetv2.training.process_group import rank_and_world_size, wait_for_all
from nnunetv2.training.training_log import duration_in_words, time_left
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

logger = logging.getLogger(__name__)

CASES_BETWEEN_BARRIERS = 20  # keeps the processes of a group within the communication time-out
QUEUED_CASES_PER_WORKER = 2  # logits wait in memory until they are exported; this bounds how many


@dataclass(frozen=True)
class ValidationSetting:
    """Where the cases of a validation come from and where its results go."""

    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict
    preprocessed_folder_base: str
    """holds gt_segmentations and, for cascades, the preprocessed cases of the next stages"""
    output_folder: str
    """gets one segmentation per case and summary.json"""
    next_stage_folder: str | None = None
    """gets one folder per next stage of a cascade; None if there is none"""
    save_probabilities: bool = False
    num_processes: int = 1


class CaseExporter:
    """Runs export functions, in this process or in a few others, and blames the case when one fails.

    At most `num_processes * QUEUED_CASES_PER_WORKER` exports are unfinished at a time; `submit` waits for room.
    """

    def __init__(self, pool: ProcessPoolExecutor | None, num_processes: int) -> None:
        self.pool = pool
        self.limit = num_processes * QUEUED_CASES_PER_WORKER
        self.unfinished: dict[Future, str] = {}

    def submit(self, case: str, function: Callable[..., Any], *args: Any) -> None:
        if self.pool is None:
            with _blaming(case):
                function(*args)
            return
        while len(self.unfinished) >= self.limit:
            self._collect(wait(self.unfinished, return_when=FIRST_COMPLETED).done)
        with _blaming(case):
            self.unfinished[self.pool.submit(function, *args)] = case

    def finish(self) -> None:
        """Waits for everything submitted; raises the first error."""
        self._collect(wait(self.unfinished).done)

    def _collect(self, done: set[Future]) -> None:
        for future in done:
            with _blaming(self.unfinished.pop(future)):
                future.result()


@contextmanager
def case_exporter(num_processes: int) -> Iterator[CaseExporter]:
    """A `CaseExporter`; with one process the exports run in this one, which saves starting another."""
    if num_processes <= 1:
        yield CaseExporter(None, 1)
        return
    # spawn: this process may hold a CUDA context and threads, which a fork does not survive
    with ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            exporter = CaseExporter(pool, num_processes)
            yield exporter
            exporter.finish()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _blaming(case: str) -> Iterator[None]:
    try:
        yield
    except NNUNetError as err:
        raise type(err)(f"Validation case {case}: {err}") from err
    except BrokenProcessPool as err:
        raise RuntimeError(
            f"A process that exports validation cases died, at the latest with case {case}; most often it ran out of "
            f"memory: set nnUNet_def_n_proc to a smaller number and repeat the validation with --val"
        ) from err
    except Exception as err:
        raise RuntimeError(f"Validation case {case} could not be exported: {err}") from err


def share_of_cases(identifiers: Sequence[str], rank: int, world_size: int) -> tuple[list[str], set[int]]:
    """The cases of one process, and the positions in them after which all processes wait for each other.

    Every process has at least `len(identifiers) // world_size` cases; only positions that all of them reach count.
    """
    reached_by_all = len(identifiers) // world_size
    barriers = set(range(CASES_BETWEEN_BARRIERS - 1, reached_by_all - 1, CASES_BETWEEN_BARRIERS))
    return list(identifiers[rank::world_size]), barriers if world_size > 1 else set()


def make_predictor(
    network: nn.Module, setting: ValidationSetting, device: torch.device, mirror_axes: tuple[int, ...] | None
) -> nnUNetPredictor:
    """Predictor around the network in training, with the settings that nnU-Net validates with."""
    predictor = nnUNetPredictor(device=device, allow_tqdm=False)
    predictor.manual_initialization(
        network, setting.plans_manager, setting.configuration_manager, None, setting.dataset_json, "", mirror_axes
    )
    return predictor


def validate(
    predictor: nnUNetPredictor,
    open_cases: Callable[[list[str]], nnUNetBaseDataset],
    identifiers: Sequence[str],
    setting: ValidationSetting,
    report: Callable[[str], None] = logger.info,
) -> dict[str, Any] | None:
    """Predicts the cases, each process its share, and scores all of them.

    Args:
        open_cases: gives the preprocessed cases of these identifiers.

    Returns:
        The content of summary.json; None except in the first process.
    """
    rank, world_size = rank_and_world_size()
    own, barriers = share_of_cases(identifiers, rank, world_size)
    predict_validation_cases(predictor, open_cases(own), setting, barriers=barriers, report=report)
    wait_for_all()
    return evaluate_validation(setting) if rank == 0 else None


def predict_validation_cases(
    predictor: nnUNetPredictor,
    dataset: nnUNetBaseDataset,
    setting: ValidationSetting,
    *,
    barriers: frozenset[int] | set[int] = frozenset(),
    report: Callable[[str], None] = logger.info,
) -> None:
    """Predicts every case of `dataset` and writes its segmentation in the geometry of the original image.

    Args:
        predictor: initialised, with the network to validate.
        dataset: preprocessed cases; of a cascade, with the segmentations of the previous stage.
        barriers: positions of cases after which to wait for the other processes.
        report: takes one line per case.
    """
    os.makedirs(setting.output_folder, exist_ok=True)
    identifiers = list(dataset.identifiers)
    durations: list[float] = []
    with case_exporter(min(setting.num_processes, len(identifiers))) as exporter:
        for position, case in enumerate(identifiers):
            remaining = time_left(durations, len(identifiers) - position)
            eta = f", about {duration_in_words(remaining)} left" if durations else ""
            report(f"Predicting {case} ({position + 1} of {len(identifiers)}{eta})")
            started = time.monotonic()
            image, properties = load_network_input(dataset, case, setting)
            logits = predictor.predict_sliding_window_return_logits(image).cpu().numpy()
            exporter.submit(case, export_prediction_from_logits, logits, properties, *_export_arguments(setting, case))
            export_to_next_stages(exporter, case, logits, properties, setting, report)
            durations.append(time.monotonic() - started)
            if position in barriers:
                wait_for_all()


def _export_arguments(setting: ValidationSetting, case: str) -> tuple:
    return (
        setting.configuration_manager,
        setting.plans_manager,
        setting.dataset_json,
        os.path.join(setting.output_folder, case),
        setting.save_probabilities,
    )


def load_network_input(
    dataset: nnUNetBaseDataset, case: str, setting: ValidationSetting
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Image of a case as (C, *spatial), for a cascade with the previous stage's labels as one-hot channels."""
    image, _, previous, properties = dataset.load_case(case)
    image = np.array(image[:])  # stored arrays are read here, and torch wants memory it may write to
    if previous is not None:
        labels = setting.plans_manager.get_label_manager(setting.dataset_json).foreground_labels
        image = np.vstack((image, convert_labelmap_to_one_hot(previous[:], labels, output_dtype=image.dtype)))
    return torch.from_numpy(image), properties


def export_to_next_stages(
    exporter: CaseExporter,
    case: str,
    logits: np.ndarray,
    properties: dict[str, Any],
    setting: ValidationSetting,
    report: Callable[[str], None],
) -> None:
    """Writes the segmentation of a case in the grid of each next stage of a cascade, as its training expects it.

    A case that is not preprocessed for a next stage is reported and left out.
    """
    for stage in setting.configuration_manager.next_stage_names or ():
        stage_configuration = setting.plans_manager.get_configuration(stage)
        folder = os.path.join(setting.preprocessed_folder_base, stage_configuration.data_identifier)
        try:
            dataset_class = infer_dataset_class(folder)
            shape = dataset_class(folder, [case]).load_case(case)[0].shape[1:]
        except (FileNotFoundError, NNUNetError) as err:
            report(f"No input for next stage {stage} from case {case}: {err}; preprocess {stage} first, then use --val")
            continue
        target = os.path.join(setting.next_stage_folder, stage, case)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        exporter.submit(
            case,
            resample_and_save,
            logits,
            shape,
            target,
            setting.plans_manager,
            setting.configuration_manager,
            properties,
            setting.dataset_json,
            1,  # threads; the cores are shared by the export processes
            dataset_class,
        )


def evaluate_validation(setting: ValidationSetting) -> dict[str, Any]:
    """Compares the predictions in the output folder with the ground truth; writes and returns summary.json."""
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
