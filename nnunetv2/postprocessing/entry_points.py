"""The commands nnUNetv2_determine_postprocessing and nnUNetv2_apply_postprocessing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.utilities.command_line import command


def build_determine_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_determine_postprocessing",
        description="Determine for which labels keeping only the largest connected component helps. Writes "
        "postprocessing.pkl, postprocessing.json and the folder postprocessed beside the segmentations.",
    )
    parser.add_argument(
        "-i", type=str, required=True, help="folder of segmentations, ideally of a full cross-validation"
    )
    parser.add_argument("-ref", type=str, required=True, help="folder of the references, with the same file names")
    _add_common(parser)
    parser.add_argument("--remove_postprocessed", action="store_true", help="do not write the folder postprocessed")
    return parser


def build_apply_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_apply_postprocessing", description="Apply the steps of a postprocessing.pkl to segmentations."
    )
    parser.add_argument("-i", type=str, required=True, help="folder of segmentations")
    parser.add_argument("-o", type=str, required=True, help="output folder; created if missing")
    parser.add_argument(
        "-pp_pkl_file",
        type=str,
        required=True,
        help="postprocessing.pkl, written by nnUNetv2_find_best_configuration or nnUNetv2_determine_postprocessing",
    )
    _add_common(parser)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-np", type=int, default=get_default_num_processes(), help="maximum number of processes; default: %(default)s"
    )
    for name in ("plans.json", "dataset.json"):
        flag = f"-{name.replace('.', '_')}"
        parser.add_argument(
            flag, type=str, default=None, help=f"{name} of the model; default: the one in the folder -i"
        )


@command
def entry_point_determine_postprocessing_folder(argv: Sequence[str] | None = None) -> None:
    args = build_determine_parser().parse_args(argv)
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing, require_folder
    from nnunetv2.utilities.processes.output_lock import locked_output

    require_folder(args.i)
    with locked_output(args.i, "determining the postprocessing"):
        keep = not args.remove_postprocessed
        determine_postprocessing(args.i, args.ref, args.plans_json, args.dataset_json, args.np, keep)


@command
def entry_point_apply_postprocessing(argv: Sequence[str] | None = None) -> None:
    args = build_apply_parser().parse_args(argv)
    from nnunetv2.postprocessing.remove_connected_components import (
        apply_postprocessing_to_folder,
        load_postprocessing,
        require_other_output,
    )
    from nnunetv2.utilities.processes.output_lock import locked_output

    functions, kwargs = load_postprocessing(args.pp_pkl_file)
    require_other_output(args.i, args.o)
    with locked_output(args.o, "postprocessing"):
        apply_postprocessing_to_folder(args.i, args.o, functions, kwargs, args.plans_json, args.dataset_json, args.np)
