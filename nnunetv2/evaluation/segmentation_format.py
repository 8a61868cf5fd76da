"""Storage format and labels of a dataset's segmentations, from plans.json and dataset.json."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dinov3.utils.atomic_files import write_json
from nnunetv2.errors import DataError
from nnunetv2.utilities.dataset_json import check_dataset_json, read_dataset_json
from nnunetv2.utilities.plans_handling.plans_schema import check_plans, read_plans

if TYPE_CHECKING:
    from nnunetv2.evaluation.confusion import LabelOrRegion
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

JsonFile = str | os.PathLike | dict[str, Any] | None


@dataclass(frozen=True)
class SegmentationFormat:
    """Reader, file ending and labels of a dataset; picklable, for worker processes."""

    reader_writer: BaseReaderWriter
    file_ending: str
    """of the segmentations, for example .nii.gz"""
    foreground_labels: Sequence[int]
    regions: Sequence[LabelOrRegion]
    """scored regions: the foreground labels, or the dataset's regions if it defines them"""
    has_regions: bool
    ignore_label: int | None
    names: Mapping[LabelOrRegion, str] = field(default_factory=dict)
    """names of the scored regions in dataset.json"""


def format_of(plans: dict[str, Any], dataset_json: dict[str, Any]) -> SegmentationFormat:
    """Derive the format from the contents of plans.json and dataset.json."""
    from nnunetv2.utilities.label_handling.output_names import foreground_names
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    labels = manager.get_label_manager(dataset_json)
    return SegmentationFormat(
        reader_writer=manager.image_reader_writer_class(),
        file_ending=dataset_json["file_ending"],
        foreground_labels=labels.foreground_labels,
        regions=labels.foreground_regions if labels.has_regions else labels.foreground_labels,
        has_regions=labels.has_regions,
        ignore_label=labels.ignore_label,
        names=foreground_names(labels),
    )


def format_of_folder(folder: str, plans: JsonFile = None, dataset_json: JsonFile = None) -> SegmentationFormat:
    """Format of the segmentations in a folder; plans.json and dataset.json default to those in the folder."""
    return format_of(*descriptions(folder, plans, dataset_json))


def descriptions(
    folder: str, plans: JsonFile = None, dataset_json: JsonFile = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Contents of plans.json and dataset.json, by default those in the folder; see `description`."""
    return (
        description(folder, "plans.json", plans, "-plans_json"),
        description(folder, "dataset.json", dataset_json, "-dataset_json"),
    )


def write_descriptions(folder: str | os.PathLike, plans: dict[str, Any], dataset_json: dict[str, Any]) -> None:
    """Write plans.json and dataset.json beside segmentations, as scoring and postprocessing need them."""
    write_json(plans, os.path.join(folder, "plans.json"))
    write_json(dataset_json, os.path.join(folder, "dataset.json"))


def description(folder: str, name: str, given: JsonFile = None, option: str | None = None) -> dict[str, Any]:
    """Read plans.json or dataset.json.

    Args:
        folder: contains the file, unless another one is given.
        given: the content, or the path of another file.
        option: flag of the current command with which users give the file, for the error message.

    Raises:
        DataError: the file does not exist, or is not JSON.
    """
    if isinstance(given, dict):
        return check_plans(given) if name == "plans.json" else check_dataset_json(given, trained=True)
    path = os.path.join(folder, name) if given is None else os.fspath(given)
    if not os.path.isfile(path):
        cure = "" if option is None else f"; name one of a model that made them ({option})"
        raise DataError(f"There is no {path}; nnU-Net writes it beside its predictions{cure}")
    return read_plans(path) if name == "plans.json" else read_dataset_json(path, trained=True)
