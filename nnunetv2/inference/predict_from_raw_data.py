"""Predict images with a trained model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.inference import output_files
from nnunetv2.inference.array_checks import check_lengths
from nnunetv2.inference.case_export import ExportSetting
from nnunetv2.inference.case_loop import predict_cases
from nnunetv2.inference.case_preprocessing import CasePreprocessor, Item
from nnunetv2.inference.data_iterators import (
    PreprocessedCases,
    num_useful_processes,
    preprocessing_iterator_fromfiles,
    preprocessing_iterator_fromnpy,
)
from nnunetv2.inference.finished_cases import FinishedCases
from nnunetv2.inference.logit_predictor import LogitPredictor
from nnunetv2.inference.output_files import CaseFiles, Source, Target, case_name
from nnunetv2.inference.output_names import prepare_outputs, without_ending
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.inference.weights_digest import weights_digest
from nnunetv2.upstream_names import command_elsewhere
from nnunetv2.utilities.processes.output_lock import locked_output
from nnunetv2.utilities.processes.shared_prediction import share_of

__all__ = ["Prediction", "nnUNetPredictor", "predict_entry_point", "predict_entry_point_modelfolder"]  # noqa: F822 - see __getattr__

logger = logging.getLogger(__name__)

Arrays = np.ndarray | list[np.ndarray]

_OWN_PREDICTION = LogitPredictor.predict_logits_from_preprocessed_data
_NOT_RECORDED = ("self", "return_predictions")  # of the arguments, in the description of a prediction


class Prediction(NamedTuple):
    """Result of one case."""

    identifier: str
    """name of the case, or of its output"""
    segmentation: np.ndarray
    """(Z, Y, X)"""
    probabilities: np.ndarray | None
    """(K, Z, Y, X), with `save_probabilities`"""

    @classmethod
    def of(cls, identifier: str, result: np.ndarray | tuple[np.ndarray, np.ndarray]) -> Prediction:
        """From a result of `predict_from_data_iterator`."""
        return cls(identifier, *result) if isinstance(result, tuple) else cls(identifier, result, None)


def __getattr__(name: str) -> Any:
    return command_elsewhere(__name__, name)


class nnUNetPredictor(LogitPredictor):  # noqa: N801 - upstream's name
    """Predicts image files or arrays with one model, averaged over its folds.

    Load a model with `initialize_from_trained_model_folder` or `manual_initialization`, then call one of the
    `predict_...` methods. For the arguments see `LogitPredictor`.

    Attributes:
        share: (rank, number of processes) if several processes share the files, each predicting some of the cases.
        shares_output: whether other predictions may write into the output folder at the same time; None if the caller
            has locked it.
    """

    share: tuple[int, int] = (0, 1)
    shares_output: bool | None = True

    def predict_from_files(
        self,
        list_of_lists_or_source_folder: Source,
        output_folder_or_list_of_truncated_output_files: Target,
        save_probabilities: bool = False,
        overwrite: bool = True,
        num_processes_preprocessing: int | None = None,
        num_processes_segmentation_export: int | None = None,
        folder_with_segs_from_prev_stage: str | os.PathLike | None = None,
        num_parts: int = 1,
        part_id: int = 0,
        *,
        return_predictions: bool = False,
    ) -> list | None:
        """Predict image files.

        Args:
            list_of_lists_or_source_folder: a folder, or the channel files of each case.
            output_folder_or_list_of_truncated_output_files: a folder, or for each case the path of its segmentation
                with or without ending, or None to return the segmentations.
            overwrite: False skips finished cases, see `FinishedCases`.
            num_processes_preprocessing: maximum number of processes, started only where this is faster; 0 for none,
                None for `nnUNet_def_n_proc`.
            num_processes_segmentation_export: the same for the export.
            folder_with_segs_from_prev_stage: for a cascade, the previous stage's segmentations of the same cases.
            num_parts: predict only every `num_parts`-th case, starting with case `part_id`.
            return_predictions: return what is written, as a list of `Prediction`. All results are kept in memory.

        Returns:
            One entry per predicted case, see `predict_from_data_iterator`; None if there was nothing to do.

        Raises:
            UsageError: arguments are inconsistent with each other or the model.
            DataError: there are no images, or a single case is unusable.
            PartialPredictionError: some of several cases failed; the others are complete.
        """
        arguments = {name: value for name, value in locals().items() if name not in _NOT_RECORDED}
        processes = num_processes_preprocessing, num_processes_segmentation_export
        return self._predict_files(arguments, *processes, return_predictions=return_predictions)

    def predict_from_files_sequential(
        self,
        list_of_lists_or_source_folder: Source,
        output_folder_or_list_of_truncated_output_files: Target,
        save_probabilities: bool = False,
        overwrite: bool = True,
        folder_with_segs_from_prev_stage: str | os.PathLike | None = None,
        *,
        return_predictions: bool = False,
    ) -> list | None:
        """Like `predict_from_files`, without starting processes."""
        arguments = {name: value for name, value in locals().items() if name not in _NOT_RECORDED}
        return self._predict_files(arguments, 0, 0, return_predictions=return_predictions)

    def _predict_files(
        self,
        arguments: dict[str, Any],
        num_processes_preprocessing: int | None,
        num_processes_export: int | None,
        *,
        return_predictions: bool,
    ) -> list | None:
        folder = output_files.output_folder_of(arguments["output_folder_or_list_of_truncated_output_files"])
        digest = None if self.list_of_parameters is None else weights_digest(self.list_of_parameters)
        if folder is not None and not arguments["overwrite"]:
            output_files.require_same_weights(folder, digest)
        cases = self._find_cases(arguments)
        with self._locked_output(folder):
            # One of several processes is enough to write the description.
            if folder is not None and self.share[0] == 0:
                output_files.write_description(folder, arguments, digest, self.dataset_json, self.plans_manager.plans)
            results = self._predict_cases(
                cases,
                arguments["save_probabilities"],
                num_processes_preprocessing,
                num_processes_export,
                return_predictions=return_predictions,
            )
        if results is None or not return_predictions:
            return results
        return [Prediction.of(case.name, result) for case, result in zip(cases, results, strict=True)]

    def _locked_output(self, folder: str | None) -> AbstractContextManager:
        # Of several processes with shares of the cases, the first represents all.
        if folder is None or self.shares_output is None or self.share[0] > 0:
            return nullcontext()
        return locked_output(folder, "predicting", shared=self.shares_output)

    def _find_cases(self, arguments: dict[str, Any]) -> list[CaseFiles]:
        target = arguments["output_folder_or_list_of_truncated_output_files"]
        previous = arguments["folder_with_segs_from_prev_stage"]
        output_files.check_previous_stage(self.configuration_manager, previous)
        output_files.check_output_folder(arguments["list_of_lists_or_source_folder"], target)
        share = share_of(arguments.get("part_id", 0), arguments.get("num_parts", 1), *self.share)
        inputs, outputs, previous_files = self._manage_input_and_output_lists(
            arguments["list_of_lists_or_source_folder"],
            target,
            previous,
            arguments["overwrite"],
            save_probabilities=arguments["save_probabilities"],
            **share,
        )
        outputs = outputs or [None] * len(inputs)
        ending = self.dataset_json["file_ending"]
        return [
            CaseFiles(images, output, previous, os.path.basename(output) if output else case_name(images[0], ending))
            for images, output, previous in zip(inputs, outputs, previous_files, strict=True)
        ]

    def _manage_input_and_output_lists(
        self,
        list_of_lists_or_source_folder: Source,
        output_folder_or_list_of_truncated_output_files: Target,
        folder_with_segs_from_prev_stage: str | os.PathLike | None = None,
        overwrite: bool = True,
        part_id: int = 0,
        num_parts: int = 1,
        save_probabilities: bool = False,
    ) -> tuple[list[list[str]], list[str] | None, list[str | None]]:
        """List the remaining cases: images, outputs (None if there are none) and previous-stage files."""
        ending = self.dataset_json["file_ending"]
        cases = output_files.find_cases(
            list_of_lists_or_source_folder,
            output_folder_or_list_of_truncated_output_files,
            ending,
            previous_stage_folder=folder_with_segs_from_prev_stage,
            part_id=part_id,
            num_parts=num_parts,
            other_endings=self.plans_manager.image_reader_writer_class.input_file_endings,
        )
        has_outputs = output_folder_or_list_of_truncated_output_files is not None
        logger.info("There are %d cases to predict", len(cases))
        if has_outputs and not overwrite:
            finished = FinishedCases(self.plans_manager, self.dataset_json, save_probabilities)
            cases = [case for case in cases if (case.images, case.output) not in finished]
            logger.info("%d of them remain, the others already exist", len(cases))
        outputs = [case.output for case in cases] if has_outputs else None
        return [case.images for case in cases], outputs, [case.previous_stage for case in cases]

    def _predict_cases(
        self,
        cases: list[CaseFiles],
        save_probabilities: bool,
        num_processes_preprocessing: int | None,
        num_processes_export: int | None,
        *,
        return_predictions: bool = False,
    ) -> list | None:
        if not cases:
            return None
        num_bytes = sum(os.path.getsize(path) for case in cases for path in case.images if os.path.isfile(path))
        has_previous = self.configuration_manager.previous_stage_name is not None
        iterator = self._internal_get_data_iterator_from_lists_of_filenames(
            [case.images for case in cases],
            [case.previous_stage for case in cases] if has_previous else None,
            [case.output for case in cases],
            num_useful_processes(_or_default(num_processes_preprocessing), len(cases), num_bytes),
        )
        if len(cases) == 1:
            num_processes_export = 0  # a single case leaves nothing to do in parallel
        return self._predict_items(iterator, save_probabilities, num_processes_export, return_predictions)

    def _internal_get_data_iterator_from_lists_of_filenames(
        self,
        input_list_of_lists: list[list[str]],
        seg_from_prev_stage_files: list[str | None] | None,
        output_filenames_truncated: list[str | None] | None,
        num_processes: int,
    ) -> PreprocessedCases:
        return preprocessing_iterator_fromfiles(
            input_list_of_lists,
            seg_from_prev_stage_files,
            output_filenames_truncated,
            self.plans_manager,
            self.dataset_json,
            self.configuration_manager,
            num_processes,
            verbose=self.verbose_preprocessing,
            ahead=self.device.type == "cuda",
        )

    def get_data_iterator_from_raw_npy_data(
        self,
        image_or_list_of_images: Arrays,
        segs_from_prev_stage_or_list_of_segs_from_prev_stage: Arrays | None,
        properties_or_list_of_properties: dict | list[dict],
        truncated_ofname: str | list[str] | None,
        num_processes: int = 3,
    ) -> PreprocessedCases:
        """Iterate over preprocessed images, for `predict_from_data_iterator`.

        Args:
            image_or_list_of_images: (C, Z, Y, X) each, with the axis order of the reader named in plans.json.
            segs_from_prev_stage_or_list_of_segs_from_prev_stage: for a cascade, label maps (1, Z, Y, X).
            properties_or_list_of_properties: with the key `spacing`, (Z, Y, X) in mm; to write files, as returned by
                the reader.
            truncated_ofname: output paths, or None. Endings are removed.
            num_processes: maximum number of processes, started only where this is faster.
        """
        images = _as_list(image_or_list_of_images)
        previous = _as_list(segs_from_prev_stage_or_list_of_segs_from_prev_stage)
        properties, outputs = _as_list(properties_or_list_of_properties), _as_list(truncated_ofname)
        check_lengths(images=images, previous_segmentations=previous, properties=properties, outputs=outputs)
        if outputs is not None:
            outputs = prepare_outputs(outputs, self.dataset_json["file_ending"])
        num_bytes = sum(getattr(image, "nbytes", 0) for image in images)
        return preprocessing_iterator_fromnpy(
            images,
            previous,
            properties,
            outputs,
            self.plans_manager,
            self.dataset_json,
            self.configuration_manager,
            num_useful_processes(num_processes, len(images), num_bytes),
            verbose=self.verbose_preprocessing,
            ahead=self.device.type == "cuda",
        )

    def predict_from_list_of_npy_arrays(
        self,
        image_or_list_of_images: Arrays,
        segs_from_prev_stage_or_list_of_segs_from_prev_stage: Arrays | None,
        properties_or_list_of_properties: dict | list[dict],
        truncated_ofname: str | list[str] | None,
        num_processes: int = 3,
        save_probabilities: bool = False,
        num_processes_segmentation_export: int | None = None,
        *,
        return_predictions: bool = False,
    ) -> list:
        """Predict arrays; see `get_data_iterator_from_raw_npy_data` and `predict_from_data_iterator`.

        Args:
            return_predictions: return a list of `Prediction`, also of written cases. The identifiers are the names of
                the outputs, without outputs the positions from 0.
        """
        iterator = self.get_data_iterator_from_raw_npy_data(
            image_or_list_of_images,
            segs_from_prev_stage_or_list_of_segs_from_prev_stage,
            properties_or_list_of_properties,
            truncated_ofname,
            num_processes,
        )
        results = self._predict_items(
            iterator, save_probabilities, num_processes_segmentation_export, return_predictions
        )
        if not return_predictions:
            return results
        outputs = _as_list(truncated_ofname)
        names = range(len(results)) if outputs is None else map(self._name_of_output, outputs)
        return [Prediction.of(str(name), result) for name, result in zip(names, results, strict=True)]

    def _name_of_output(self, output: str | os.PathLike) -> str:
        return os.path.basename(without_ending(output, self.dataset_json["file_ending"]))

    def _predict_items(
        self,
        items: Iterable[Item],
        save_probabilities: bool,
        num_processes_export: int | None,
        return_predictions: bool,
    ) -> list:
        # Without the keyword where it is not needed: subclasses of upstream's users do not know it.
        more = {"return_predictions": True} if return_predictions else {}
        return self.predict_from_data_iterator(items, save_probabilities, num_processes_export, **more)

    def predict_from_data_iterator(
        self,
        data_iterator: Iterable[Item],
        save_probabilities: bool = False,
        num_processes_segmentation_export: int | None = None,
        *,
        return_predictions: bool = False,
    ) -> list:
        """Predict preprocessed cases.

        Args:
            data_iterator: yields dictionaries with `data` (C, *spatial), a tensor or the path of an .npy file that is
                deleted after reading; `data_properties`; and `ofile`, the output path without ending, or None.
            num_processes_segmentation_export: maximum number of processes; 0 for none, None for `nnUNet_def_n_proc`.
            return_predictions: also return the predictions that are written to files.

        Returns:
            For each case the segmentation (Z, Y, X), or with `save_probabilities` the pair (segmentation, scores
            (K, Z, Y, X)); None if a file was written and `return_predictions` is False.

        Raises:
            PartialPredictionError: some of several cases with output files failed; the others are complete. The error
                of a case without output file is raised immediately.
        """
        setting = ExportSetting(
            self.plans_manager,
            self.configuration_manager,
            self.dataset_json,
            save_probabilities,
            _or_default(num_processes_segmentation_export),
            return_predictions,
            self.device if self.perform_everything_on_device else None,
        )
        predict = self.predict_logits_from_preprocessed_data
        if getattr(predict, "__func__", None) is _OWN_PREDICTION:
            predict = self._logits_where_computed  # a subclass's own prediction returns them in main memory
        try:
            return predict_cases(data_iterator, predict, setting)
        finally:
            compute_gaussian.cache_clear()

    def predict_single_npy_array(
        self,
        input_image: np.ndarray,
        image_properties: dict,
        segmentation_previous_stage: np.ndarray | None = None,
        output_file_truncated: str | None = None,
        save_or_return_probabilities: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray] | None:
        """Predict one image (C, Z, Y, X), with the axis order of the reader named in plans.json.

        Args:
            image_properties: with the key `spacing`, (Z, Y, X) in mm; to write a file, as returned by the reader.
            segmentation_previous_stage: for a cascade, the label map (1, Z, Y, X).

        Returns:
            The segmentation (Z, Y, X), or with probabilities the pair (segmentation, scores (K, Z, Y, X)); None if it
            was written to `output_file_truncated`.
        """
        preprocessor = CasePreprocessor(
            self.plans_manager, self.dataset_json, self.configuration_manager, self.verbose_preprocessing
        )
        (output,) = prepare_outputs([output_file_truncated], self.dataset_json["file_ending"])
        item = preprocessor.from_npy(input_image, segmentation_previous_stage, image_properties, output)
        return self.predict_from_data_iterator([item], save_or_return_probabilities, 0)[0]


def _or_default(num_processes: int | None) -> int:
    return get_default_num_processes() if num_processes is None else num_processes


def _as_list(value: Any) -> list | None:
    return value if value is None or isinstance(value, list) else [value]
