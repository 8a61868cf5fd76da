"""The command nnUNetv2_compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from nnunetv2.comparison.class_arguments import add_class_arguments, metric_names
from nnunetv2.comparison.errors import NotComparableError, refuse
from nnunetv2.comparison.metric import METRICS
from nnunetv2.comparison.settings import EMPTY_POLICIES, CompareSettings
from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import UsageError
from nnunetv2.utilities.command_line import command

_EXAMPLES = """
examples:
  nnUNetv2_compare -d 4 -m nnUNetTrainer__nnUNetPlans__2d nnUNetTrainer_m2f__nnUNetPlans__2d -o comparison
  nnUNetv2_compare -d 4 -m ours=predictions/ours theirs=predictions/theirs -o comparison
  nnUNetv2_compare -d 4 -m unet=runs/a/MODEL unet=runs/b/MODEL m2f=runs/c/MODEL m2f=runs/d/MODEL -o comparison
"""


def build_parser() -> argparse.ArgumentParser:
    defaults = CompareSettings()
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_compare",
        description="Report which of several trained models is better, by how much, how certainly, and at what cost.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="number or name of the dataset")
    add(
        "-m",
        nargs="+",
        required=True,
        metavar="[METHOD=]MODEL",
        help="TRAINER__PLANS__CONFIGURATION of nnUNet_results, the folder of a model, or a folder of predictions; "
        "models with the same METHOD are trainings of it with different seeds",
    )
    add("-o", required=True, metavar="FOLDER", help="folder of the report")
    add("-f", nargs="+", default=None, metavar="FOLD", help="folds (default: every fold that any model validated)")
    add(
        "-ref", default=None, metavar="FOLDER", help="references, for predictions of other cases than the dataset's own"
    )
    add(
        "--metrics",
        nargs="+",
        default=list(defaults.metrics),
        metavar="METRIC",
        help=f"one or more of {', '.join(METRICS)}; the first decides (default: {' '.join(defaults.metrics)})",
    )
    add(
        "--nsd_tolerance",
        default=str(defaults.nsd_tolerance),
        metavar="MM",
        help="tolerance of NSD, in mm (default: %(default)s)",
    )
    add("--baseline", default=None, metavar="METHOD", help="compare the others with this one (default: every pair)")
    add(
        "--empty",
        default=defaults.empty,
        choices=EMPTY_POLICIES,
        help="classes absent from the reference of a case: exclude the case for all models, or score an empty "
        "prediction 1 and any other 0 (default: %(default)s)",
    )
    add(
        "--margin",
        default=None,
        metavar="X",
        help="also test non-inferiority, in both directions, with this margin in the first metric",
    )
    add("--alpha", default=defaults.alpha, metavar="A", help="family-wise error rate of the tests of a metric")
    add("--bootstrap", default=defaults.num_resamples, metavar="N", help="bootstrap resamples (default: %(default)s)")
    add("--seed", default=defaults.seed, metavar="N", help="seed of the resampling (default: %(default)s)")
    add(
        "--allow",
        nargs="*",
        default=None,
        metavar="ITEM",
        help="accept differences in these items, named as in the error message; without a name, in all items",
    )
    add_class_arguments(parser)
    add(
        "--lacks",
        nargs="+",
        default=[],
        metavar="METHOD:CLASSES",
        help="classes that a method does not know, and is not scored in: human:artery,vein; METHOD: if it lacks none",
    )
    add(
        "--reader",
        default=None,
        metavar="[NAME=]FOLDER",
        help="segmentations of a second human reader, whose agreement is shown beside the methods",
    )
    add("-np", type=int, default=get_default_num_processes(), help="maximum number of processes (default: %(default)s)")
    return parser


def settings_of(args: argparse.Namespace) -> CompareSettings:
    """Convert parsed arguments to settings."""
    primary_metrics = [name for name in args.primary if name in METRICS]
    tolerance = args.nsd_tolerance.removesuffix("mm").removesuffix("px")
    return CompareSettings(
        metrics=metric_names([*primary_metrics, *args.metrics]),
        nsd_tolerance=_number("--nsd_tolerance", tolerance, float, "millimetres as in 1.5"),
        regions=tuple(args.regions),
        classes=tuple(args.classes),
        primary_classes=tuple(name for name in args.primary if name not in METRICS),
        among=tuple(args.among),
        lacks=tuple(args.lacks),
        empty=args.empty,
        num_resamples=_number("--bootstrap", args.bootstrap, int, "whole numbers"),
        seed=_number("--seed", args.seed, int, "whole numbers from 0"),
        alpha=_number("--alpha", args.alpha, float, "numbers as in 0.05"),
        margin=None if args.margin is None else _number("--margin", args.margin, float, "numbers as in 0.01"),
        baseline=args.baseline,
    )


def _number(flag: str, given: str | float, kind: type[float] | type[int], accepted: str) -> Any:
    try:
        return kind(given)
    except ValueError:
        raise UsageError(f"{flag} is {given}; accepted are {accepted}") from None


def _locked(output: Path) -> AbstractContextManager:
    from nnunetv2.utilities.processes.output_lock import locked_output

    return nullcontext() if output.is_file() else locked_output(output, "comparing")  # compare rejects a file


@command
def compare_entry(argv: Sequence[str] | None = None) -> int:
    """Console command `nnUNetv2_compare`."""
    args = build_parser().parse_args(argv)
    settings = settings_of(args)
    allowed = () if args.allow is None else tuple(args.allow) or ("all",)
    references = None if args.ref is None else Path(args.ref)

    from nnunetv2.comparison.compare import compare
    from nnunetv2.comparison.report.verdict import verdict_in_words

    try:
        with _locked(Path(args.o)):
            comparison = compare(
                args.d,
                args.m,
                Path(args.o),
                folds=args.f,
                settings=settings,
                allow=allowed,
                references=references,
                num_processes=args.np,
                fields=args.fov,
                reader=args.reader,
            )
    except NotComparableError as err:
        return refuse(err)
    for sentence in verdict_in_words(comparison):
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"The report is {Path(args.o) / 'report.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(compare_entry())
