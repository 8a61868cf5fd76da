"""The commands nnUNetv2_extract_fingerprint, _plan_experiment, _preprocess and _plan_and_preprocess."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import UsageError
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.crossval_split import add_split_arguments, split_rule_of

DEFAULT_NUM_PROCESSES = {"2d": 8, "3d_fullres": 4, "3d_lowres": 8}
"""Default numbers of processes per configuration; larger images need more memory per process."""
NUM_PROCESSES_OF_OTHERS = 4


def build_extract_fingerprint_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_extract_fingerprint", description="Collect what planning needs to know of a raw dataset."
    )
    _add_datasets(parser)
    _add_fingerprint(parser, "-np")
    _add_output(parser)
    return parser


def build_plan_experiment_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_plan_experiment",
        description="Plan networks and preprocessing from the fingerprint of a dataset.",
    )
    _add_datasets(parser)
    _add_planning(parser)
    return parser


def build_preprocess_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_preprocess", description="Preprocess the training cases of a dataset as its plans say."
    )
    _add_datasets(parser)
    parser.add_argument("-plans_name", default="nnUNetPlans", help="name of the plans; default: %(default)s")
    _add_preprocessing(parser)
    _add_output(parser)
    return parser


def build_plan_and_preprocess_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_plan_and_preprocess", description="Fingerprint, plans and preprocessed cases in one go."
    )
    _add_datasets(parser)
    _add_fingerprint(parser, "-npfp")
    parser.add_argument("--no_pp", action="store_true", help="stop after planning, without preprocessing")
    _add_planning(parser)
    _add_preprocessing(parser)
    _add_output(parser)
    return parser


def _add_datasets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", nargs="+", type=int, metavar="ID", help="required: one or more dataset ids, for example: 2 4 5"
    )


def _add_fingerprint(parser: argparse.ArgumentParser, processes_flag: str) -> None:
    parser.add_argument(
        "-fpe", type=str, default="DatasetFingerprintExtractor", help="class of the extractor; default: %(default)s"
    )
    parser.add_argument(
        processes_flag,
        type=int,
        metavar="N",
        default=get_default_num_processes() if processes_flag == "-np" else 8,
        help="largest number of processes for the fingerprint; default: %(default)s",
    )
    parser.add_argument(
        "--verify_dataset_integrity",
        action="store_true",
        help="check all files of the dataset first; recommended once for every dataset",
    )
    parser.add_argument(
        "--allow_geometry_mismatch",
        action="store_true",
        help="with --verify_dataset_integrity: only warn if origin or direction of image and label differ",
    )
    parser.add_argument(
        "--clean",
        action="store_true",
        help="compute the fingerprint again if there is one; needed after any change to the dataset",
    )


def _add_planning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-pl", type=str, default="ExperimentPlanner", help="class of the planner; default: %(default)s")
    parser.add_argument(
        "-gpu_memory_target",
        type=float,
        metavar="GB",
        default=None,
        help="GPU memory in GB to plan for, in place of the planner's own; changes patch and batch size",
    )
    parser.add_argument(
        "-preprocessor_name",
        type=str,
        default="DefaultPreprocessor",
        help="class of the preprocessor, from nnunetv2.preprocessing; default: %(default)s",
    )
    parser.add_argument(
        "-overwrite_target_spacing",
        nargs="+",
        metavar="MM",
        default=None,
        help="three numbers, mm per axis in the order of the files' arrays: spacing of 3d_fullres and its cascade",
    )
    parser.add_argument(
        "-overwrite_plans_name",
        metavar="NAME",
        default=None,
        help="name of the plans; give one whenever you change a setting above, so that the default plans stay",
    )
    add_split_arguments(parser)


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        nargs="+",
        metavar="NAME",
        default=["2d", "3d_fullres", "3d_lowres"],
        help="configurations; those missing in the plans are skipped; 3d_cascade_fullres uses the cases of "
        "3d_fullres; default: 2d 3d_fullres 3d_lowres",
    )
    parser.add_argument(
        "-np",
        nargs="+",
        metavar="N",
        type=int,
        default=None,
        help="number of processes for preprocessing: one for all configurations, or one for each; use fewer if memory "
        "runs out; default: 8 for 2d, 4 for 3d_fullres, 8 for 3d_lowres, 4 for others",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--verbose", action="store_true", help="log every case")
    parser.add_argument("--no_pbar", action="store_true", help="no progress bar")


def _checked_datasets(args: argparse.Namespace) -> list[int]:
    if not args.d:
        raise UsageError("No dataset was given; name at least one by its id, for example: -d 4")
    return args.d


def processes_per_configuration(configurations: Sequence[str], given: Sequence[int] | None) -> list[int]:
    """Returns the user's numbers, or defaults per configuration that limit memory."""
    if given is not None:
        return list(given)
    return [DEFAULT_NUM_PROCESSES.get(configuration, NUM_PROCESSES_OF_OTHERS) for configuration in configurations]


def _extract(args: argparse.Namespace, num_processes: int, *, check_labels: bool = True) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints

    extract_fingerprints(
        args.d,
        args.fpe,
        num_processes,
        args.verify_dataset_integrity,
        args.clean,
        args.verbose,
        show_progress_bar=not args.no_pbar,
        allow_geometry_mismatch=args.allow_geometry_mismatch,
        check_labels=check_labels,
    )


def _plan(args: argparse.Namespace) -> str:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments, split_dataset

    plans_name = plan_experiments(
        args.d,
        args.pl,
        args.gpu_memory_target,
        args.preprocessor_name,
        args.overwrite_target_spacing,
        args.overwrite_plans_name,
    )
    rule = split_rule_of(args)
    if rule.num_folds is not None or rule.group_by is not None:
        for dataset in args.d:
            split_dataset(dataset, rule)
    return plans_name


def _preprocess(args: argparse.Namespace, plans_name: str) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    preprocess(
        args.d,
        plans_name,
        configurations=args.c,
        num_processes=processes_per_configuration(args.c, args.np),
        verbose=args.verbose,
        show_progress_bar=not args.no_pbar,
    )


@command
def extract_fingerprint_entry(argv: Sequence[str] | None = None) -> None:
    args = build_extract_fingerprint_parser().parse_args(argv)
    _checked_datasets(args)
    _extract(args, args.np)


@command
def plan_experiment_entry(argv: Sequence[str] | None = None) -> None:
    args = build_plan_experiment_parser().parse_args(argv)
    _checked_datasets(args)
    _plan(args)


@command
def preprocess_entry(argv: Sequence[str] | None = None) -> None:
    args = build_preprocess_parser().parse_args(argv)
    _checked_datasets(args)
    _preprocess(args, args.plans_name)


@command
def plan_and_preprocess_entry(argv: Sequence[str] | None = None) -> None:
    args = build_plan_and_preprocess_parser().parse_args(argv)
    _checked_datasets(args)
    from nnunetv2.experiment_planning.plan_and_preprocess_api import require_planning_names
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import changes_labels
    from nnunetv2.utilities.class_lookup import find_by_name

    require_planning_names(args.pl, args.preprocessor_name, args.overwrite_plans_name)
    split_rule_of(args)  # rejects wrong values before the fingerprint, which can take long
    preprocessor = find_by_name("preprocessor", args.preprocessor_name)
    _extract(args, args.npfp, check_labels=not changes_labels(preprocessor))
    plans_name = _plan(args)
    if not args.no_pp:
        _preprocess(args, plans_name)
