"""The printed commands predict new images as they stand, cascades and ensembles included."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from nnunetv2.ensembling.ensemble import build_parser as build_ensemble_parser
from nnunetv2.errors import DataError
from nnunetv2.evaluation.inference_instructions import (
    generate_inference_command,
    inference_instructions,
    print_inference_instructions,
)
from nnunetv2.inference.predict_entry_points import build_predict_parser
from nnunetv2.postprocessing.entry_points import build_apply_parser
from tests.recorded.crossval_cases import dataset_name, write_descriptions

DATASET = dataset_name("labels")
LOWRES, CASCADE = ("nnUNetTrainer", "3d_lowres"), ("nnUNetTrainer", "3d_cascade_fullres")
M2F = ("nnUNetTrainer_m2f", "2d")
PARSERS = {
    "nnUNetv2_predict": build_predict_parser,
    "nnUNetv2_ensemble": build_ensemble_parser,
    "nnUNetv2_apply_postprocessing": build_apply_parser,
}


@pytest.fixture
def models(nnunet_folders: dict[str, Path]) -> Path:
    results = nnunet_folders["nnUNet_results"] / DATASET
    for trainer, configuration in (LOWRES, CASCADE, M2F, ("Other", "3d_lowres"), ("Other", "3d_cascade_fullres")):
        write_descriptions(results / f"{trainer}__nnUNetPlans__{configuration}", "labels")
    return results


def information(*chosen: tuple[str, str], folder: str = "/results") -> dict:
    return {
        "dataset_name_or_id": DATASET,
        "folds": [0, 1],
        "best_model_or_ensemble": {
            "postprocessing_file": f"{folder}/postprocessing.pkl",
            "some_plans_file": f"{folder}/plans.json",
            "selected_model_or_models": [
                {"trainer": trainer, "configuration": configuration, "plans_identifier": "nnUNetPlans"}
                for trainer, configuration in chosen
            ],
        },
    }


def commands(*chosen: tuple[str, str], folder: str = "/results") -> list[tuple[str, dict]]:
    """The commands among the instructions, as their own parsers understand them."""
    lines = inference_instructions(information(*chosen, folder=folder)).splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("nnUNetv2_")]
    return [(first, vars(PARSERS[first]().parse_args(rest))) for first, *rest in words]


def require_inputs_made_before(steps: list[tuple[str, dict]]) -> None:
    """Every folder that a command reads is the input of all, or the output of an earlier command."""
    made = {"INPUT_FOLDER"}
    for _, arguments in steps:
        inputs = arguments["i"] if isinstance(arguments["i"], list) else [arguments["i"]]
        previous = arguments.get("prev_stage_predictions")
        assert {*inputs, *([previous] if previous else [])} <= made
        assert arguments["o"] not in made
        made.add(arguments["o"])
    assert arguments["o"] == "OUTPUT_FOLDER_PP"


def test_one_model_is_predicted_and_postprocessed(models):
    (predict, first), (postprocess, second) = steps = commands(M2F, folder="/with space")
    require_inputs_made_before(steps)
    assert (predict, postprocess) == ("nnUNetv2_predict", "nnUNetv2_apply_postprocessing")
    assert (first["d"], first["tr"], first["c"], first["p"], list(first["f"])) == (DATASET, *M2F, "nnUNetPlans", [0, 1])
    assert not first["save_probabilities"] and first["o"] == "OUTPUT_FOLDER"
    assert (
        second["pp_pkl_file"] == "/with space/postprocessing.pkl" and second["plans_json"] == "/with space/plans.json"
    )


def test_a_cascade_is_predicted_stage_by_stage(models):
    steps = commands(CASCADE)
    require_inputs_made_before(steps)
    lowres, cascade = steps[0][1], steps[1][1]
    assert (lowres["c"], cascade["c"]) == ("3d_lowres", "3d_cascade_fullres")
    assert lowres["o"] == cascade["prev_stage_predictions"] == "OUTPUT_FOLDER_PREV_STAGE"
    assert lowres["i"] == cascade["i"] == "INPUT_FOLDER"


def test_an_ensemble_needs_the_probabilities_of_its_members(models):
    steps = commands(CASCADE, M2F)
    require_inputs_made_before(steps)
    assert [name for name, _ in steps] == ["nnUNetv2_predict"] * 3 + [
        "nnUNetv2_ensemble",
        "nnUNetv2_apply_postprocessing",
    ]
    saved = {arguments["o"]: arguments["save_probabilities"] for name, arguments in steps[:3]}
    assert saved == {
        "OUTPUT_FOLDER_MODEL_1_PREV_STAGE": False,
        "OUTPUT_FOLDER_MODEL_1": True,
        "OUTPUT_FOLDER_MODEL_2": True,
    }
    assert steps[3][1]["i"] == sorted(steps[3][1]["i"]) == ["OUTPUT_FOLDER_MODEL_1", "OUTPUT_FOLDER_MODEL_2"]


@pytest.mark.parametrize("members", [(LOWRES, CASCADE), (CASCADE, LOWRES)])
def test_a_first_stage_that_is_a_member_is_predicted_once_and_first(members, models):
    steps = commands(*members)
    require_inputs_made_before(steps)
    assert [arguments["c"] for name, arguments in steps if name == "nnUNetv2_predict"] == [
        "3d_lowres",
        "3d_cascade_fullres",
    ]
    assert steps[1][1]["prev_stage_predictions"] == steps[0][1]["o"]
    assert steps[0][1]["save_probabilities"]


def test_two_cascades_do_not_share_a_folder(models):
    steps = commands(CASCADE, ("Other", "3d_cascade_fullres"))
    require_inputs_made_before(steps)
    assert [arguments["tr"] for _, arguments in steps[:4]] == ["nnUNetTrainer", "nnUNetTrainer", "Other", "Other"]


def test_predictions_of_the_previous_stage_that_exist_are_used(models):
    keywords = {"folder_with_segs_from_prev_stage": "LOW", "input_folder": "IN", "save_npz": True}
    assert generate_inference_command(DATASET, "3d_cascade_fullres", folds=[0], **keywords) == (
        f"nnUNetv2_predict -d {DATASET} -i IN -o OUTPUT_FOLDER -f 0 -tr nnUNetTrainer -c 3d_cascade_fullres "
        "-p nnUNetPlans -prev_stage_predictions LOW --save_probabilities"
    )


def test_every_stage_gets_the_given_input(models):
    lines = generate_inference_command(DATASET, "3d_cascade_fullres", input_folder="A", output_folder="B")
    first, second = lines.split("\n")
    assert "-i A -o B_PREV_STAGE" in first and "-i A -o B -f" in second


def test_an_untrained_model_has_no_command(models):
    with pytest.raises(DataError, match=r"There is no .*nnUNetTrainer__nnUNetPlans__2d/plans.json; the model has not"):
        generate_inference_command(DATASET, "2d")


def test_printed_text_is_that_of_the_file_and_of_information_read_again(models, tmp_path, capsys):
    content = information(CASCADE, M2F)
    print_inference_instructions(content, tmp_path / "instructions.txt")
    text = (tmp_path / "instructions.txt").read_text()
    assert capsys.readouterr().out == f"\n{text}"
    print_inference_instructions(json.loads(json.dumps(content)))
    assert capsys.readouterr().out == f"\n{text}"
