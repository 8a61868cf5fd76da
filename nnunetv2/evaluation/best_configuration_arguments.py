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
        description="Score trained models and all ensembles of two of them by cross-validation, determine the "
        "postprocessing of the best, and print the commands that predict with it. Evaluates all combinations of "
        "-tr, -p and -c; configurations missing from the plans are skipped.",
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
        help="explicit models, as TRAINER__PLANS__CONFIGURATION, instead of all combinations of -tr, -p and -c; for "
        "example a 3D U-Net and a 2D Mask2Former",
    )
    add("-np", type=int, default=get_default_num_processes(), help=_PROCESSES_HELP)
    add("-f", nargs="+", type=_fold_of_crossvalidation, default=DEFAULT_FOLDS, help=_FOLDS_HELP)
    add("--disable_ensembling", action="store_true", help="evaluate single models only; needs no probabilities (--npz)")
    add(
        "--no_overwrite",
        action="store_true",
        help="keep the results of an earlier call and add missing ones; do not use after retraining a model",
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


_PROCESSES_HELP = "maximum number of processes; default: %(default)s"
_FOLDS_HELP = "folds to include, all of which must have been validated; default: 0 1 2 3 4"
