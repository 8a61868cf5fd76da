"""Average the probabilities of several models, from prediction folders or from cross-validations."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.ensembling import prediction_files, probability_arrays
from nnunetv2.errors import UsageError
from nnunetv2.evaluation.crossval_folds import validated_probabilities
from nnunetv2.evaluation.segmentation_format import JsonFile, description, write_descriptions
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.message_parts import counted

if TYPE_CHECKING:
    import numpy as np

    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

logger = logging.getLogger(__name__)

_WORTH_PROCESSES_BYTES = 2**25  # of compressed probabilities; below it, starting processes takes longer than it saves


def average_probabilities(list_of_files: Sequence[str | os.PathLike]) -> np.ndarray:
    """Average the arrays `probabilities` of `.npz` files, accumulated in the given order in float32.

    Returns:
        (K, Z, Y, X); at most two such arrays are in memory at a time.

    Raises:
        UsageError: no file was given.
        DataError: a file is damaged, or its shape differs from that of the first.
    """
    if not list_of_files:
        raise UsageError("There are no files to average; give at least one")
    first, *others = list_of_files
    mean = probability_arrays.read_probabilities(first)
    for path in others:
        summand = probability_arrays.read_probabilities(path)
        probability_arrays.require_same_shape(path, summand.shape, first, mean.shape)
        mean += summand
    mean /= len(list_of_files)
    return mean


def merge_files(
    list_of_files: Sequence[str | os.PathLike],
    output_filename_truncated: str,
    output_file_ending: str,
    image_reader_writer: BaseReaderWriter,
    label_manager: LabelManager,
    save_probabilities: bool = False,
) -> None:
    """Average the predictions of one case and write its files, the segmentation last.

    Args:
        list_of_files: `.npz` files; the first one needs a `.pkl` with the image properties beside it.
        output_filename_truncated: path of the segmentation without its ending.
        save_probabilities: also write the average as `.npz` and `.pkl`; if False, existing ones are removed.

    Raises:
        DataError: the files do not match each other or the labels, or are damaged.
    """
    from nnunetv2.utilities.probability_files import remove_probabilities, write_probabilities
    from nnunetv2.utilities.restricted_pickle import load_restricted

    properties = load_restricted(os.fspath(list_of_files[0]).removesuffix(".npz") + ".pkl")
    mean = average_probabilities(list_of_files)
    probability_arrays.require_outputs(list_of_files[0], mean.shape, label_manager.num_segmentation_heads)
    segmentation = label_manager.convert_probabilities_to_segmentation(mean)
    if save_probabilities:
        write_probabilities(mean, properties, output_filename_truncated)
    else:
        remove_probabilities(output_filename_truncated)
    image_reader_writer.write_seg(segmentation, output_filename_truncated + output_file_ending, properties)


def ensemble_folders(
    list_of_input_folders: Sequence[str | os.PathLike],
    output_folder: str | os.PathLike,
    save_merged_probabilities: bool = False,
    num_processes: int | None = None,
    dataset_json_file_or_dict: JsonFile = None,
    plans_json_file_or_dict: JsonFile = None,
) -> None:
    """Average predictions of the same images by several models, of any architectures, and write segmentations.

    The output folder also receives dataset.json and plans.json of the first model.

    Args:
        list_of_input_folders: predictions made with `--save_probabilities`.
        save_merged_probabilities: also write the averaged probabilities.
        num_processes: maximum number of worker processes; None uses `nnUNet_def_n_proc`.
        dataset_json_file_or_dict: replaces dataset.json of the folders, which otherwise must agree on the labels.
        plans_json_file_or_dict: replaces plans.json of the first folder.

    Raises:
        UsageError: a folder is missing, given twice, or the output.
        DataError: a folder lacks cases, or predictions do not match; nothing is written in that case.
        PartialPredictionError: some cases failed; the others are complete, and `failures.json` lists the reasons.
    """
    folders = [os.fspath(folder) for folder in list_of_input_folders]
    prediction_files.require_distinct_folders(folders, output_folder)
    dataset_json = description(folders[0], "dataset.json", dataset_json_file_or_dict)
    plans = description(folders[0], "plans.json", plans_json_file_or_dict)
    if dataset_json_file_or_dict is None:
        others = [folder for folder in folders[1:] if os.path.isfile(os.path.join(folder, "dataset.json"))]
        own = {folder: read_dataset_json(os.path.join(folder, "dataset.json"), trained=True) for folder in others}
        prediction_files.require_same_labels({folders[0]: dataset_json, **own})
    cases = prediction_files.matched({folder: prediction_files.probability_files(folder) for folder in folders})
    _merge_cases(cases, output_folder, dataset_json, plans, num_processes, save_probabilities=save_merged_probabilities)
    logger.info("Averaged %s into %s", counted(len(cases), "case"), os.fspath(output_folder))


def ensemble_crossvalidations(
    list_of_trained_model_folders: Sequence[str | os.PathLike],
    output_folder: str | os.PathLike,
    folds: Sequence[int | str] = (0, 1, 2, 3, 4),
    num_processes: int | None = None,
    overwrite: bool = True,
) -> None:
    """Average the validations of several trained models, whose splits may differ.

    Args:
        list_of_trained_model_folders: models validated with `--npz` in all `folds`.
        num_processes: maximum number of worker processes; None uses `nnUNet_def_n_proc`.
        overwrite: False skips the cases whose segmentation already exists in the output folder.

    Raises:
        UsageError: a model is given twice.
        DataError: a validation or a case is missing, a case is in two folds of one model, or predictions do not
            match each other.
        PartialPredictionError: see `ensemble_folders`.
    """
    models = [os.fspath(folder) for folder in list_of_trained_model_folders]
    prediction_files.require_distinct_folders(models, output_folder)
    descriptions = {model: description(model, "dataset.json") for model in models}
    prediction_files.require_same_labels(descriptions)
    dataset_json, plans = descriptions[models[0]], description(models[0], "plans.json")
    cases = prediction_files.matched({model: validated_probabilities(model, folds) for model in models})
    if not overwrite:
        ending = dataset_json["file_ending"]
        cases = {case: files for case, files in cases.items() if not Path(output_folder, case + ending).is_file()}
    _merge_cases(cases, output_folder, dataset_json, plans, num_processes)


def _merge_cases(
    cases: Mapping[str, Sequence[str]],
    output_folder: str | os.PathLike,
    dataset_json: dict[str, Any],
    plans: dict[str, Any],
    num_processes: int | None,
    *,
    save_probabilities: bool = False,
) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from nnunetv2.utilities.processes.case_pool import write_every_case

    plans_manager = PlansManager(plans)
    writer, labels = plans_manager.image_reader_writer_class(), plans_manager.get_label_manager(dataset_json)
    probability_arrays.require_matching(cases, labels.num_segmentation_heads)
    os.makedirs(output_folder, exist_ok=True)
    write_descriptions(output_folder, plans, dataset_json)
    ending = dataset_json["file_ending"]
    jobs = {
        case: (files, os.path.join(output_folder, case), ending, writer, labels, save_probabilities)
        for case, files in cases.items()
    }
    num_processes = get_default_num_processes() if num_processes is None else num_processes
    num_bytes = sum(os.path.getsize(path) for files in cases.values() for path in files)
    if num_bytes < _WORTH_PROCESSES_BYTES:
        num_processes = min(num_processes, 1)
    shown = {"description": "Ensembling", "show_progress": True}
    write_every_case(merge_files, jobs, output_folder, ending, num_processes, **shown)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_ensemble",
        description="Average the probabilities that several models predicted for the same images, and write the "
        "resulting segmentations.",
    )
    parser.add_argument(
        "-i", nargs="+", type=str, required=True, help="folders of predictions, made with --save_probabilities"
    )
    parser.add_argument("-o", type=str, required=True, help="folder for the segmentations; created if missing")
    parser.add_argument(
        "-np", type=int, default=get_default_num_processes(), help="maximum number of processes; default: %(default)s"
    )
    parser.add_argument("--save_npz", action="store_true", help="also write the averaged probabilities (.npz)")
    return parser


@command
def entry_point_ensemble_folders(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from nnunetv2.utilities.processes.output_lock import locked_output

    prediction_files.require_distinct_folders(args.i, args.o)
    with locked_output(args.o, "ensembling"):
        ensemble_folders(args.i, args.o, args.save_npz, args.np)
