"""The command `nnUNetv2_study`: trains the models of a study over folds and seeds, and compares them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2.comparison.errors import NotComparableError, refuse
from nnunetv2.errors import UsageError
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.message_parts import command_text

if TYPE_CHECKING:
    from nnunetv2.study.run_study import Study


def build_parser() -> argparse.ArgumentParser:
    """Parser of `nnUNetv2_study`."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_study",
        usage="%(prog)s STUDY.yaml [--dry_run | --power [PILOT] | --slurm | --only_compare | --no_compare]\n"
        "       %(prog)s --init STUDY.yaml",
        description="Train models x folds x seeds with equal budgets, one after the other, and compare them. Finished "
        "trainings are skipped and interrupted ones resume, so the same command can be repeated at any time.",
        epilog="See docs/study.md.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("study", nargs="?", metavar="STUDY.yaml", help="study file; results go to the folder STUDY beside it")
    mode = parser.add_mutually_exclusive_group()
    add = mode.add_argument
    add("--dry_run", action="store_true", help="only print the commands and their cost; write nothing")
    add("--slurm", action="store_true", help="submit the trainings to Slurm as one array instead of running them here")
    add("--only_compare", action="store_true", help="skip training; rejected while trainings are unfinished")
    add("--no_compare", action="store_true", help="skip the comparison")
    add(
        "--power",
        nargs="?",
        const="",
        default=None,
        metavar="PILOT",
        help="only print which differences the study can show, and how many cases and seeds others take; PILOT is the "
        "report of a pilot with several seeds (default: that of the study itself)",
    )
    add("--init", metavar="FILE", default=None, help="only write an annotated template")
    return parser


@command
def study_entry(argv: Sequence[str] | None = None) -> int:
    """Console command `nnUNetv2_study`."""
    args = build_parser().parse_args(argv)
    if args.init is not None:
        if args.study is not None:
            raise UsageError("--init cannot be combined with a study file; start the study afterwards")
        write_template(Path(args.init))
        return 0
    if args.study is None:
        raise UsageError("No study is given; give its file, or write a template with --init STUDY.yaml")

    from nnunetv2.study.run_study import read_study

    study = read_study(Path(args.study))
    try:
        _carry_out(study, args)
    except NotComparableError as err:
        return refuse(err)
    return 0


def _carry_out(study: Study, args: argparse.Namespace) -> None:
    from nnunetv2.study.run_study import require_comparison, train_all

    if args.dry_run:
        from nnunetv2.study.cost_estimate import described

        sys.stdout.write(described(study))
        sys.stdout.flush()
        require_comparison(study)
        return
    if args.power is not None:
        from nnunetv2.study.power_report import described as power_described

        sys.stdout.write(power_described(study, Path(args.power) if args.power else None))
        return
    if not args.no_compare:
        require_comparison(study)
    if args.slurm:
        from nnunetv2.study.slurm import submit

        submit(study, args.study)
        return
    if not args.only_compare:
        train_all(study)
    if args.no_compare:
        return
    if len(study.methods) > 1:
        _compare(study)
    else:
        sys.stdout.write("There is one model, so there is nothing to compare\n")


def _compare(study: Study) -> None:
    from nnunetv2.comparison.report.verdict import verdict_in_words
    from nnunetv2.study.run_study import compare_all

    comparison = compare_all(study)
    for sentence in verdict_in_words(comparison):
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"The report is {study.folder / 'comparison' / 'report.html'}\n")


def write_template(path: Path) -> None:
    """Write an annotated study file.

    Raises:
        UsageError: the file already exists, or its folder does not.
    """
    from importlib.resources import files

    from dinov3.utils.atomic_files import replace_when_complete

    if path.exists():
        raise UsageError(f"--init {path} exists already and is not overwritten; give another name or remove it")
    if not path.parent.is_dir():
        raise UsageError(f"--init {path}: there is no folder {path.parent}; make it first")
    text = files("nnunetv2.configs").joinpath("study.yaml").read_text(encoding="utf-8")
    with replace_when_complete(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    trial = command_text(["nnUNetv2_study", path, "--dry_run"])
    sys.stdout.write(f"Wrote a study template to {path}; preview it with {trial}\n")


if __name__ == "__main__":
    sys.exit(study_entry())
