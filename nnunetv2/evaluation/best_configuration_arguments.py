"""Flags of nnUNetv2_find_best_configuration and nnUNetv2_accumulate_crossval_results."""

from __future__ import annotations

import argparse

from nnunetv2.configuration import get_default_num_processes

DEFAULT_FOLDS = (0, 1, 2, 3, 4)
DEFAULT_PLANS = "nnUNetPlans"
DEFAULT_TRAINER = "nnUNetTrainer"
DEFAULT_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")


def build_find_best_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_find_best_configuration",
        description="Score trained models and the ensembles of any two of them by cross-validation, determine the "
        "postprocessing of the best, and print the commands that predict with it. Considered are all combinations of "
        "-tr, -p and -c; configurations that the plans do not have are left out.",
    )
    add = parser.add_argument
    add("dataset_name_or_id", type=str, help="dataset, by name or number")
    add("-p", nargs="+", default=[DEFAULT_PLANS], help=f"plans; default: {DEFAULT_PLANS}")
    add("-c", nargs="+", default=[*DEFAULT_CONFIGURATIONS], help=f"default: {' '.join(DEFAULT_CONFIGURATIONS)}")
    add("-tr", nargs="+", default=[DEFAULT_TRAINER], help=f"trainers; default: {DEFAULT_TRAINER}")
    add(
        "-m",
        nargs="+",
        default=None,
        metavar="MODEL",
        help="the models themselves, as TRAINER__PLANS__CONFIGURATION, instead of -tr, -p and -c; for a choice that is "
        "not all combinations, like a U-Net in 3-D and Mask2Former in 2-D",
    )
    add("-np", type=int, default=get_default_num_processes(), help=_PROCESSES_HELP)
    add("-f", nargs="+", type=_fold_of_crossvalidation, default=DEFAULT_FOLDS, help=_FOLDS_HELP)
    add("--disable_ensembling", action="store_true", help="only single models; needs no probabilities (--npz)")
    add(
        "--no_overwrite",
        action="store_true",
        help="keep what an earlier call wrote, and add what is missing; wrong if a model was trained again since",
    )
    return parser


def build_accumulate_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_accumulate_crossval_results",
        description="Copy the validations of all folds of a model into one folder and score them as a whole.",
    )
    add = parser.add_argument
    add("dataset_name_or_id", type=str, help="dataset, by name or number")
    add("-c", type=str, required=True, default="3d_fullres", help="configuration, for example 2d or 3d_fullres")
    add(
        "-o", type=str, default=None, help="output folder, new or empty; default: crossval_results_folds_X of the model"
    )
    add("-f", nargs="+", type=_fold_of_crossvalidation, default=DEFAULT_FOLDS, help=_FOLDS_HELP)
    add("-p", type=str, default=DEFAULT_PLANS, help="plans of the model; default: %(default)s")
    add("-tr", type=str, default=DEFAULT_TRAINER, help="trainer of the model; default: %(default)s")
    return parser


def _fold_of_crossvalidation(text: str) -> int:
    if not text.isdecimal():
        reason = ", as it validates on what it is trained on" if text == "all" else ""
        raise argparse.ArgumentTypeError(f"{text!r} is no fold of a cross-validation{reason}; accepted: 0, 1, 2, ...")
    return int(text)


_PROCESSES_HELP = "largest number of processes; default: %(default)s"
_FOLDS_HELP = "folds that count, all of which must have been validated; default: 0 1 2 3 4"
