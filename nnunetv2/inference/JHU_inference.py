"""Predict one binary file per class, the layout of the AbdomenAtlas benchmark of Johns Hopkins University."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nnunetv2.inference.case_loop import close_workers_of
from nnunetv2.inference.case_preprocessing import Item
from nnunetv2.inference.export_prediction import Logits, convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.case_identifiers import check_case_identifier
from nnunetv2.utilities.dataset_json import read_dataset_json
from nnunetv2.utilities.label_handling.label_declaration import Entry, members, only_background
from nnunetv2.utilities.label_handling.label_handling import IGNORE
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from nnunetv2.utilities.probability_files import remove_probabilities, write_probabilities
from nnunetv2.utilities.processes.case_failures import CaseFailures

logger = logging.getLogger(__name__)

SUBFOLDER = "predictions"


def export_prediction_from_logits_singleFiles(  # noqa: N802 - upstream's name
    predicted_array_or_file: Logits,
    properties_dict: dict[str, Any],
    configuration_manager: ConfigurationManager,
    plans_manager: PlansManager,
    dataset_json_dict_or_file: dict | str,
    output_file_truncated: str,
    save_probabilities: bool = False,
) -> None:
    """Write `predictions/CLASS.nii.gz` for each foreground class: 1 inside the class and 0 elsewhere.

    For the arguments see `export_prediction_from_logits`. The mask of a region is the union of its labels.

    Args:
        output_file_truncated: folder of the case; with `save_probabilities` also the base name of its `.npz` and
            `.pkl`.

    Raises:
        DataError: a class name is not a valid file name.
    """
    dataset_json = dataset_json_dict_or_file
    dataset_json = dataset_json if isinstance(dataset_json, dict) else read_dataset_json(dataset_json, trained=True)
    converted = convert_predicted_logits_to_segmentation_with_correct_shape(
        predicted_array_or_file,
        plans_manager,
        configuration_manager,
        plans_manager.get_label_manager(dataset_json),
        properties_dict,
        return_probabilities=save_probabilities,
    )
    _write_classes(converted, properties_dict, plans_manager, dataset_json, output_file_truncated)


class JHUPredictor(nnUNetPredictor):
    """Like `nnUNetPredictor`, but writes a folder with one binary file per class for each case.

    Output paths denote folders, so existing cases are always predicted again.
    """

    def predict_from_data_iterator(
        self,
        data_iterator: Iterable[Item],
        save_probabilities: bool = False,
        num_processes_segmentation_export: int | None = None,
        *,
        return_predictions: bool = False,
    ) -> list:
        """See `nnUNetPredictor.predict_from_data_iterator`; each case is written before the next one is predicted.

        Args:
            num_processes_segmentation_export: ignored.
        """
        failures, results, folders = CaseFailures(), [], set()
        try:
            for number, item in enumerate(data_iterator, start=1):
                results.append(None)
                if item["ofile"] is None:
                    results[-1] = self._predict_and_return(item, save_probabilities)
                    continue
                logger.info("Case %d: %s", number, item["ofile"])
                folders.add(os.path.dirname(item["ofile"]))
                with failures.of(os.path.basename(item["ofile"])):
                    converted = self._predict_and_return(item, save_probabilities)
                    properties, plans = item["data_properties"], self.plans_manager
                    _write_classes(converted, properties, plans, self.dataset_json, item["ofile"])
                    if return_predictions:
                        results[-1] = converted
        finally:
            close_workers_of(data_iterator)
            for folder in folders:
                failures.write(folder)
        failures.raise_any(len(results))
        return results

    def _predict_and_return(self, item: Item, save_probabilities: bool) -> Any:
        unwritten = {"data": item["data"], "data_properties": item["data_properties"], "ofile": None}
        return super().predict_from_data_iterator([unwritten], save_probabilities, 0)[0]


def _write_classes(
    converted: np.ndarray | tuple[np.ndarray, np.ndarray],
    properties: dict[str, Any],
    plans_manager: PlansManager,
    dataset_json: dict,
    output: str,
) -> None:
    """Write the classes of a label map (Z, Y, X), preceded by its scores, if any."""
    segmentation = converted
    classes = _foreground(dataset_json["labels"])
    folder = os.path.join(output, SUBFOLDER)
    os.makedirs(folder, exist_ok=True)
    if isinstance(converted, tuple):
        segmentation, scores = converted
        write_probabilities(scores, properties, output)
    else:
        remove_probabilities(output)
    writer = plans_manager.image_reader_writer_class()
    for name, labels in classes.items():
        mask = np.isin(segmentation, labels).astype(np.uint8)
        writer.write_seg(mask, os.path.join(folder, name + dataset_json["file_ending"]), properties)


def _foreground(labels: Mapping[str, Entry]) -> dict[str, tuple[int, ...]]:
    """Integers of each foreground class; the class names are checked, since they become file names."""
    classes = {name: entry for name, entry in labels.items() if name != IGNORE and not only_background(entry)}
    return {check_case_identifier(name): members(entry) for name, entry in classes.items()}
