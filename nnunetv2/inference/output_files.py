"""Input and output files of a prediction."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dinov3.utils.atomic_files import read_json, write_json
from dinov3.utils.visible_files import visible_files
from nnunetv2.errors import DataError, UsageError
from nnunetv2.inference.output_names import prepare_outputs
from nnunetv2.utilities.json_export import json_ready
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from nnunetv2.utilities.utils import create_lists_from_splitted_dataset_folder

Path = str | os.PathLike
Source = Path | Sequence[Sequence[Path]]
Target = Path | Sequence[Path] | None

_ARGUMENTS = "predict_from_raw_data_args.json"
_WEIGHTS = "weights_digest"
_CHANNEL_LENGTH = len("_0000")
_NUMBERED = re.compile(r"(.+)_(\d{4})", re.DOTALL)


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case."""

    images: list[str]
    """one per channel"""
    output: str | None
    """path of the segmentation without ending; None returns it instead"""
    previous_stage: str | None
    """segmentation of the previous cascade stage"""
    name: str
    """of the case, or of its output"""


def find_cases(
    source: Source,
    target: Target,
    file_ending: str,
    *,
    previous_stage_folder: Path | None = None,
    part_id: int = 0,
    num_parts: int = 1,
    other_endings: Sequence[str] = (),
) -> list[CaseFiles]:
    """List the cases to predict.

    Args:
        source: folder of images, or the channel files of each case.
        target: output folder, output path of each case, or None. Endings of given paths are removed.
        part_id: index of the share to predict, 0 to `num_parts - 1`.
        other_endings: in lower case; of further images of a folder that the model's reader reads. A case that has files
            with its own ending keeps them.

    Raises:
        DataError: the folder does not exist or has no images.
        UsageError: `part_id` is out of range, `target` and `source` differ in length, or an output cannot be written.
    """
    if num_parts < 1 or not 0 <= part_id < num_parts:
        raise UsageError(f"part_id is {part_id} with num_parts {num_parts}; it must be from 0 to num_parts - 1")
    images = _list_images(source, file_ending, other_endings)
    names = [case_name(files[0], file_ending) for files in images]
    outputs = _list_outputs(target, names, file_ending)
    cases = [
        CaseFiles(
            images=[os.fspath(path) for path in files],
            output=output,
            previous_stage=previous_stage_folder and os.path.join(previous_stage_folder, name + file_ending),
            name=name if output is None else os.path.basename(output),
        )
        for files, name, output in zip(images, names, outputs, strict=True)
    ]
    return cases[part_id::num_parts]


def case_name(image: Path, file_ending: str) -> str:
    """Name of a case from its first image, `CASE_0000.ENDING`; the ending may be another one, as of a JPEG file."""
    name = os.path.basename(image)
    if not name.endswith(file_ending) and (match := _NUMBERED.fullmatch(os.path.splitext(name)[0])):
        return match[1]
    return name[: -len(file_ending) - _CHANNEL_LENGTH]


def _list_images(source: Source, file_ending: str, other_endings: Sequence[str]) -> Sequence[Sequence[Path]]:
    if not isinstance(source, (str, os.PathLike)):
        if not all(not isinstance(files, str) and len(files) for files in source):
            raise UsageError("Images must be given as one list of files per case, with one file per channel")
        return source
    images = create_lists_from_splitted_dataset_folder(source, file_ending)
    if other_endings:
        images = _with_other_endings(images, source, file_ending, other_endings)
    if not images:
        others = sorted(name for name in os.listdir(source) if not name.startswith("."))
        there = f"it has {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}" if others else "it is empty"
        raise DataError(
            f"There are no images in {os.fspath(source)}: this model reads files named CASE_0000{file_ending} "
            f"(CASE_0001{file_ending} for a second channel), and {there}"
        )
    return images


def _with_other_endings(
    images: list[list[str]], folder: Path, file_ending: str, endings: Sequence[str]
) -> list[list[str]]:
    """Adds the cases that only have files with other endings.

    Raises:
        DataError: a channel of a case has two files.
    """
    by_case = {case_name(files[0], file_ending): files for files in images}
    added: dict[str, dict[str, str]] = {}
    for path in visible_files(folder):
        match = _NUMBERED.fullmatch(path.stem)
        if match is None or path.suffix.lower() not in endings or match[1] in by_case:
            continue
        channels = added.setdefault(match[1], {})
        if match[2] in channels:
            raise DataError(f"{path} and {channels[match[2]]} are the same channel of one case; remove one of them")
        channels[match[2]] = os.fspath(path)
    by_case |= {case: [channels[number] for number in sorted(channels)] for case, channels in added.items()}
    return [by_case[case] for case in sorted(by_case)]


def _list_outputs(target: Target, names: Sequence[str], file_ending: str) -> list[str | None]:
    if target is None:
        return [None] * len(names)
    if isinstance(target, (str, os.PathLike)):
        # As they are: a case `scan.nii` is written to, and looked for in, `scan.nii.nii.gz`.
        return [os.path.join(target, name) for name in names]
    if len(target) != len(names):
        raise UsageError(f"There are {len(names)} cases and {len(target)} output files; give one for each case")
    return prepare_outputs(target, file_ending)


def check_previous_stage(configuration_manager: ConfigurationManager, folder: Path | None) -> None:
    """Raise `UsageError` unless a folder of previous-stage segmentations is given exactly if the model needs one."""
    stage = configuration_manager.previous_stage_name
    if stage is not None and folder is None:
        raise UsageError(
            f"This model is the second stage of a cascade; predict the same images with the model of {stage} first "
            f"(nnUNetv2_predict -c {stage}) and name the folder of its segmentations (-prev_stage_predictions)"
        )
    if stage is None and folder is not None:
        raise UsageError(
            "This model is not the second stage of a cascade and takes no segmentations of a previous stage; leave out "
            "-prev_stage_predictions"
        )
    if folder is not None and not os.path.isdir(folder):
        raise UsageError(
            f"There is no folder {os.fspath(folder)} of the previous stage's segmentations; make it with "
            f"nnUNetv2_predict -c {stage}, or correct -prev_stage_predictions"
        )


def check_output_folder(source: Source, target: Target) -> None:
    """Raise `UsageError` if segmentations would be written among the images, and later be mistaken for images."""
    if not (isinstance(source, (str, os.PathLike)) and isinstance(target, (str, os.PathLike))):
        return
    if os.path.realpath(source) == os.path.realpath(target):
        raise UsageError(
            f"The images are in {os.fspath(source)}, and the segmentations would go into the same folder; give another "
            f"output folder (-o)"
        )


def output_folder_of(target: Target) -> str | None:
    """Folder for the description of the prediction; for a list of files, that of the first."""
    if target is None or isinstance(target, (str, os.PathLike)):
        return None if target is None else os.fspath(target)
    return (os.path.dirname(target[0]) or os.path.curdir) if len(target) else None


def require_same_weights(folder: str, digest: str | None) -> None:
    """Raise `UsageError` if the predictions of a folder, which are to be continued, are those of other weights.

    Args:
        digest: of the weights, see `weights_digest`; None: unknown.
    """
    path = os.path.join(folder, _ARGUMENTS)
    if digest is None or not os.path.isfile(path):
        return
    content = read_json(path)
    found = content.get(_WEIGHTS) if isinstance(content, dict) else None
    if found not in (None, digest):
        raise UsageError(
            f"The predictions in {folder} were made with other weights, so that --continue_prediction would mix two "
            "models; give another output folder, or predict all cases again without it"
        )


def write_description(
    folder: str, arguments: dict[str, Any], digest: str | None, dataset_json: dict, plans: dict
) -> None:
    """Write the arguments of a prediction, and the model's plans.json and dataset.json for later steps."""
    os.makedirs(folder, exist_ok=True)
    readable = json.loads(json.dumps(json_ready(arguments), default=os.fspath))  # converts paths inside lists as well
    recorded = readable if digest is None else {**readable, _WEIGHTS: digest}
    write_json(recorded, os.path.join(folder, _ARGUMENTS), sort_keys=True)
    write_json(dataset_json, os.path.join(folder, "dataset.json"))
    write_json(plans, os.path.join(folder, "plans.json"))
