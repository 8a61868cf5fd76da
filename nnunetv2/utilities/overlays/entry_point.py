"""The command nnUNetv2_plot_overlay_pngs: one picture per training case, for a quick check of the labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.utilities.command_line import command


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_plot_overlay_pngs",
        description="Draw the slice of each training case that shows most of its labels, in colour, as CASE.png. "
        "Spacing is ignored.",
    )
    add = parser.add_argument
    add("-d", type=str, required=True, help="dataset, by number or by name")
    add("-o", type=str, required=True, help="folder for the pictures")
    add("-np", type=int, default=get_default_num_processes(), help="maximum number of processes; default: %(default)s")
    add("-channel_idx", type=int, default=0, help="channel to draw, 0 for CASE_0000; default: %(default)s")
    add("--use_raw", action="store_true", help="draw the raw data instead of the preprocessed")
    add("-p", type=str, default="nnUNetPlans", help="plans, for preprocessed data; default: %(default)s")
    add("-c", type=str, default=None, help="configuration, for preprocessed data; default: 3d_fullres if it is there")
    add("-overlay_intensity", type=float, default=0.6, help="strength of the colours, 0 to 1; default: %(default)s")
    return parser


@command
def entry_point_generate_overlay(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    from nnunetv2.utilities.overlays.dataset_overlays import (
        generate_overlays_from_preprocessed,
        generate_overlays_from_raw,
    )

    common = (args.d, args.o, args.np, args.channel_idx)
    if args.use_raw:
        generate_overlays_from_raw(*common, args.overlay_intensity)
    else:
        generate_overlays_from_preprocessed(*common, args.c, args.p, args.overlay_intensity)
