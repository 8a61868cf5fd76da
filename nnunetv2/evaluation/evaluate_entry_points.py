"""The commands nnUNetv2_evaluate_folder and nnUNetv2_evaluate_simple."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.message_parts import counted

logger = logging.getLogger(__name__)


def build_evaluate_folder_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_evaluate_folder",
        description="Compare predicted segmentations with references, using the labels or regions of the dataset.",
    )
    _add_folders(parser)
    parser.add_argument("-djfile", type=str, required=True, help="the dataset.json of the dataset")
    parser.add_argument("-pfile", type=str, required=True, help="the plans.json of the model")
    _add_common(parser)
    return parser


def build_evaluate_simple_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_evaluate_simple", description="Compare predicted segmentations with references, label by label."
    )
    _add_folders(parser)
    parser.add_argument(
        "-l", type=int, nargs="+", metavar="LABEL", required=True, help="labels to evaluate, for example: 1 2 3"
    )
    parser.add_argument("-il", type=int, default=None, help="ignore label: voxels with it in the reference are skipped")
    _add_common(parser)
    return parser


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gt_folder", type=str, help="folder of the references")
    parser.add_argument("pred_folder", type=str, help="folder of the predictions, with the same file names")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", type=str, default=None, help="output file (.json); default: PRED_FOLDER/summary.json")
    parser.add_argument(
        "-np", type=int, default=get_default_num_processes(), help="maximum number of processes; default: %(default)s"
    )
    parser.add_argument(
        "--chill",
        action="store_true",
        help="average over the cases that are predicted; without it, missing predictions are an error",
    )
    parser.add_argument(
        "--allow_geometry_mismatch",
        action="store_true",
        help="only warn if spacing, origin or direction of a prediction and its reference differ",
    )


@command
def evaluate_folder_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_evaluate_folder_parser().parse_args(argv)
    from dinov3.utils.atomic_files import read_json
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2

    with _locked(args):
        summary = compute_metrics_on_folder2(
            args.gt_folder,
            args.pred_folder,
            args.djfile,
            args.pfile,
            args.o,
            args.np,
            chill=args.chill,
            allow_geometry_mismatch=args.allow_geometry_mismatch,
        )
    _report(summary, args, read_json(args.djfile)["file_ending"])


@command
def evaluate_simple_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_evaluate_simple_parser().parse_args(argv)
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder_simple, image_ending

    with _locked(args):
        summary = compute_metrics_on_folder_simple(
            args.gt_folder,
            args.pred_folder,
            args.l,
            args.o,
            args.np,
            args.il,
            chill=args.chill,
            allow_geometry_mismatch=args.allow_geometry_mismatch,
        )
    _report(summary, args, image_ending(args.gt_folder))


def _locked(args: argparse.Namespace) -> AbstractContextManager:
    """Excludes predictions into the folder, of which only a part would be evaluated."""
    from nnunetv2.utilities.processes.output_lock import locked_output

    return locked_output(args.pred_folder, "evaluating") if os.path.isdir(args.pred_folder) else nullcontext()


def _report(summary: dict[str, Any], args: argparse.Namespace, file_ending: str) -> None:
    from nnunetv2.evaluation.evaluate_predictions import files_with_ending

    num_scored, num_references = len(summary["metric_per_case"]), len(files_with_ending(args.gt_folder, file_ending))
    cases = counted(num_scored, "case") if num_scored == num_references else f"{num_scored} of {num_references} cases"
    output = args.o or os.path.join(args.pred_folder, "summary.json")
    logger.info("Mean Dice %.5f over %s; all scores are in %s", summary["foreground_mean"]["Dice"], cases, output)
