"""Format the commands that predict new images with the models selected by cross-validation."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dinov3.utils.atomic_files import replace_when_complete
from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import DataError
from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.message_parts import command_text

_INPUT, _OUTPUT, _POSTPROCESSED = "INPUT_FOLDER", "OUTPUT_FOLDER", "OUTPUT_FOLDER_PP"


def previous_stage_of(model_folder: str | os.PathLike, configuration: str) -> str | None:
    """Configuration of the previous cascade stage according to the model's plans.json; None if there is none.

    Raises:
        DataError: the folder has no plans.json.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = os.path.join(model_folder, "plans.json")
    if not os.path.isfile(plans):
        raise DataError(f"There is no {plans}; the model has not been trained, or its folder is incomplete")
    return PlansManager(plans).get_configuration(configuration).previous_stage_name


def generate_inference_command(
    dataset_name_or_id: int | str,
    configuration_name: str,
    plans_identifier: str = "nnUNetPlans",
    trainer_name: str = "nnUNetTrainer",
    folds: Sequence[int | str] = (0, 1, 2, 3, 4),
    folder_with_segs_from_prev_stage: str | None = None,
    input_folder: str = _INPUT,
    output_folder: str = _OUTPUT,
    save_npz: bool = False,
) -> str:
    """Format the command that predicts with one trained model.

    A cascade yields one line per stage, earlier stages first; their predictions go to the output folder's name with
    the suffix `_PREV_STAGE`.

    Args:
        folder_with_segs_from_prev_stage: existing predictions of the previous stage.
        save_npz: also save probabilities, for ensembling.
    """
    model_folder = get_output_folder(dataset_name_or_id, trainer_name, plans_identifier, configuration_name)
    previous_stage = previous_stage_of(model_folder, configuration_name)
    commands = []
    if previous_stage is not None and folder_with_segs_from_prev_stage is None:
        folder_with_segs_from_prev_stage = f"{output_folder}_PREV_STAGE"
        commands.append(
            generate_inference_command(
                dataset_name_or_id,
                previous_stage,
                plans_identifier,
                trainer_name,
                folds,
                None,
                input_folder,
                folder_with_segs_from_prev_stage,
            )
        )
    words = ["nnUNetv2_predict", "-d", dataset_name_or_id, "-i", input_folder, "-o", output_folder, "-f", *folds]
    words += ["-tr", trainer_name, "-c", configuration_name, "-p", plans_identifier]
    if folder_with_segs_from_prev_stage is not None:
        words += ["-prev_stage_predictions", folder_with_segs_from_prev_stage]
    if save_npz:
        words.append("--save_probabilities")
    return "\n".join([*commands, command_text(words)])


def inference_instructions(inference_info_dict: Mapping[str, Any]) -> str:
    """Format the commands for new images, with explanations in between.

    Args:
        inference_info_dict: content of inference_information.json.
    """
    best = inference_info_dict["best_model_or_ensemble"]
    predictions = _prediction_commands(inference_info_dict)
    sections = ["***Run inference like this:***"]
    if len(predictions) > 1:
        sections += [
            "An ensemble is best. Predict with each of its members:",
            "\n".join(predictions.values()),
            "Then average their probabilities:",
            command_text(
                ["nnUNetv2_ensemble", "-i", *predictions, "-o", _OUTPUT, "-np", get_default_num_processes()],
            ),
        ]
    else:
        sections += predictions.values()
    postprocess = ["nnUNetv2_apply_postprocessing", "-i", _OUTPUT, "-o", _POSTPROCESSED]
    postprocess += ["-pp_pkl_file", best["postprocessing_file"], "-np", get_default_num_processes()]
    postprocess += ["-plans_json", best["some_plans_file"]]
    sections += ["***Once inference is completed, run postprocessing like this:***", command_text(postprocess)]
    return "\n\n".join(sections) + "\n"


def _prediction_commands(inference_info_dict: Mapping[str, Any]) -> dict[str, str]:
    """Commands of the selected models by output folder, in order of their dependencies.

    If one ensemble member is the first cascade stage of another, it is predicted once for both.
    """
    dataset, folds = inference_info_dict["dataset_name_or_id"], inference_info_dict["folds"]
    chosen = inference_info_dict["best_model_or_ensemble"]["selected_model_or_models"]
    is_ensemble = len(chosen) > 1
    outputs = {_names(model): f"{_OUTPUT}_MODEL_{i + 1}" if is_ensemble else _OUTPUT for i, model in enumerate(chosen)}
    commands: dict[str, str] = {}

    def add(model: tuple[str, str, str]) -> None:
        trainer, plans, configuration = model
        previous = previous_stage_of(get_output_folder(dataset, *model), configuration)
        first_stage = outputs.get((trainer, plans, previous))
        if first_stage is not None and first_stage not in commands:
            add((trainer, plans, previous))
        commands.setdefault(
            outputs[model],
            generate_inference_command(
                dataset, configuration, plans, trainer, folds, first_stage, _INPUT, outputs[model], is_ensemble
            ),
        )

    for model in outputs:
        add(model)
    return commands


def _names(model: Mapping[str, str]) -> tuple[str, str, str]:
    return model["trainer"], model["plans_identifier"], model["configuration"]


def print_inference_instructions(
    inference_info_dict: Mapping[str, Any], instructions_file: str | os.PathLike | None = None
) -> None:
    """Print the commands for new images, and optionally write them to a file.

    Args:
        inference_info_dict: content of inference_information.json.
    """
    text = inference_instructions(inference_info_dict)
    sys.stdout.write(f"\n{text}")
    if instructions_file is not None:
        with replace_when_complete(instructions_file) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")
