"""The commands nnUNetv2_evaluate_folder and nnUNetv2_evaluate_simple."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from nnunetv2.comparison.class_arguments import add_class_arguments, metric_names
from nnunetv2.configuration import get_default_num_processes
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.message_parts import counted

if TYPE_CHECKING:
    from nnunetv2.comparison.evaluation_metrics import EvaluationChoice

logger = logging.getLogger(__name__)


def build_evaluate_folder_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_evaluate_folder",
        description="Compare predicted segmentations with references, using the labels or regions of the dataset.",
    )
    _add_folders(parser)
    parser.add_argument("-djfile", type=str, required=True, help="the dataset.json of the dataset")
    parser.add_argument(
        "-pfile", type=str, default=None, help="the plans.json of the model; not needed for folders of other programs"
    )
    _add_common(parser)
    return parser


def build_evaluate_simple_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_evaluate_simple", description="Compare predicted segmentations with references, label by label."
    )
    _add_folders(parser)
    parser.add_argument(
        "-l", type=int, nargs="+", metavar="LABEL", default=None, help="labels to evaluate, for example: 1 2 3"
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
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="METRIC",
        help="metrics of nnUNetv2_compare to add: clDice Sens Spec Acc Betti0 Betti1 ObjectF1 PQ ...",
    )
    add_class_arguments(parser)


@command
def evaluate_folder_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_evaluate_folder_parser().parse_args(argv)
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2, label_manager_of
    from nnunetv2.utilities.dataset_json import read_dataset_json
    from nnunetv2.utilities.label_handling.output_names import foreground_names, named_labels

    choice = _choice(args)
    dataset_json = read_dataset_json(args.djfile, trained=True)
    manager = label_manager_of(dataset_json, args.pfile)
    classes = {name: region for region, name in foreground_names(manager).items()}
    regions, options = choice.resolved(classes, named_labels(manager), manager.ignore_label)
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
            regions=regions,
            options=options,
        )
    _report(summary, args, choice, dataset_json["file_ending"])


@command
def evaluate_simple_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_evaluate_simple_parser().parse_args(argv)
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder_simple, image_ending

    choice = _choice(args)
    labels, options = choice.resolved({str(label): label for label in args.l or ()}, {}, args.il)
    with _locked(args):
        summary = compute_metrics_on_folder_simple(
            args.gt_folder,
            args.pred_folder,
            labels,
            args.o,
            args.np,
            args.il,
            chill=args.chill,
            allow_geometry_mismatch=args.allow_geometry_mismatch,
            options=options,
        )
    _report(summary, args, choice, image_ending(args.gt_folder))


def _choice(args: argparse.Namespace) -> EvaluationChoice:
    from nnunetv2.comparison.evaluation_metrics import EvaluationChoice

    return EvaluationChoice(
        metrics=metric_names(args.metrics),
        regions=tuple(args.regions),
        classes=tuple(args.classes),
        primary=tuple(args.primary),
        among=tuple(args.among),
        fields=args.fov,
    )


def _locked(args: argparse.Namespace) -> AbstractContextManager:
    """Excludes predictions into the folder, of which only a part would be evaluated."""
    from nnunetv2.utilities.processes.output_lock import locked_output

    return locked_output(args.pred_folder, "evaluating") if os.path.isdir(args.pred_folder) else nullcontext()


def _report(summary: dict[str, Any], args: argparse.Namespace, choice: EvaluationChoice, file_ending: str) -> None:
    from nnunetv2.evaluation.evaluate_predictions import files_with_ending

    num_scored, num_references = len(summary["metric_per_case"]), len(files_with_ending(args.gt_folder, file_ending))
    cases = counted(num_scored, "case") if num_scored == num_references else f"{num_scored} of {num_references} cases"
    output = args.o or os.path.join(args.pred_folder, "summary.json")
    metric = choice.primary_metric
    mean = summary.get("primary_mean", summary["foreground_mean"])[metric]
    logger.info("Mean %s %.5f over %s; all scores are in %s", metric, mean, cases, output)
