"""The commands nnUNetv2_predict and nnUNetv2_predict_from_modelfolder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import NoReturn

from nnunetv2.errors import UsageError
from nnunetv2.utilities.command_line import command
from nnunetv2.utilities.processes.command_processes import log_the_first_process_only, require_num_gpus

_CITATION = (
    "Please cite: Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image "
    "segmentation. Nature Methods 18, 203-211 (2021)."
)
_DEFAULT_FOLDS = (0, 1, 2, 3, 4)


class _Parser(argparse.ArgumentParser):
    """Knows a flag that users of nnUNetv2_train expect here."""

    def error(self, message: str) -> NoReturn:
        if "unrecognized arguments" in message and "--npz" in message.split():
            message += "; predictions save probabilities with --save_probabilities"
        super().error(message)


def build_predict_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nnUNetv2_predict",
        description="Predict images with a model in nnUNet_results.",
        epilog=_CITATION,
    )
    _add_input_and_output(parser)
    parser.add_argument("-d", type=str, required=True, help="dataset of the model, by number or by name")
    parser.add_argument("-p", type=str, default="nnUNetPlans", help="plans of the model; default: %(default)s")
    parser.add_argument("-tr", type=str, default="nnUNetTrainer", help="trainer of the model; default: %(default)s")
    parser.add_argument("-c", type=str, required=True, help="configuration of the model, for example 2d or 3d_fullres")
    _add_prediction(parser, _number_from_environment("nnUNet_npp", 3), _number_from_environment("nnUNet_nps", 3))
    parser.add_argument("--continue_prediction", action="store_true", help=_CONTINUE_HELP)
    parser.add_argument(
        "-num_parts", type=int, default=1, help="number of calls of this command that share the cases; default: 1"
    )
    parser.add_argument(
        "-part_id", type=int, default=0, help="index of this call among them, from 0 to NUM_PARTS - 1; default: 0"
    )
    return parser


def build_predict_from_modelfolder_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nnUNetv2_predict_from_modelfolder",
        description="Predict images with the model in a folder; needs no environment variables.",
        epilog=_CITATION,
    )
    _add_input_and_output(parser)
    parser.add_argument("-m", type=str, required=True, help="model folder, which contains the folders fold_X")
    _add_prediction(parser, 3, 3)
    parser.add_argument("--continue_prediction", "--c", action="store_true", help=_CONTINUE_HELP)
    parser.set_defaults(num_parts=1, part_id=0)
    return parser


_CONTINUE_HELP = "skip cases that are already predicted; those with damaged results are predicted again"


def _add_input_and_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i",
        type=str,
        required=True,
        help="folder of the images, named CASE_0000.ENDING, CASE_0001.ENDING, ... with one file per channel and the "
        "same ending as the training images; models of .png, .bmp and .tif images also read JPEG, GIF and others",
    )
    parser.add_argument(
        "-o", type=str, required=True, help="folder for the segmentations, CASE.ENDING; created if missing"
    )


def _add_prediction(parser: argparse.ArgumentParser, npp: int, nps: int) -> None:
    add = parser.add_argument
    add(
        "-f",
        nargs="+",
        type=_fold,
        default=_DEFAULT_FOLDS,
        help="folds to average, numbers or all; default: 0 1 2 3 4",
    )
    add(
        "-step_size",
        type=float,
        default=0.5,
        help="distance of neighbouring tiles as a fraction of the tile, at most 1; larger is faster and less accurate; "
        "default: %(default)s",
    )
    add("--disable_tta", action="store_true", help="disable mirroring: faster, less accurate")
    add("--verbose", action="store_true", help="log more details")
    add("--save_probabilities", action="store_true", help="also write probabilities, as needed for ensembling")
    add("-chk", type=str, default="checkpoint_final.pth", help="file name of the checkpoint; default: %(default)s")
    add(
        "-npp",
        type=int,
        default=npp,
        help="maximum number of preprocessing processes, started only where this is faster; 0 starts none; "
        "default: %(default)s",
    )
    add("-nps", type=int, default=nps, help="the same for exporting segmentations; default: %(default)s")
    add(
        "-prev_stage_predictions",
        type=str,
        default=None,
        help="for the second stage of a cascade: folder with the first stage's segmentations of these images",
    )
    add(
        "-device",
        type=str,
        default="cuda",
        help="cuda, cpu or mps; choose a GPU with CUDA_VISIBLE_DEVICES; default: %(default)s",
    )
    add(
        "-num_gpus",
        type=int,
        default=1,
        help="number of processes that share the cases, each with its own GPU (-device cpu: some of the cores) and its "
        "own -npp and -nps processes; default: %(default)s",
    )
    add("--disable_progress_bar", action="store_true", help="hide the progress bar (log files never contain one)")
    add("--not_on_device", action="store_true", help="keep logits in main memory, for GPUs with little memory")


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor all")
    return text if text == "all" else int(text)


def _number_from_environment(variable: str, default: int) -> int:
    value = os.environ.get(variable, str(default))
    if not value.strip().isdecimal():
        raise UsageError(f"{variable} is {value!r}; it must be a whole number of at least 0")
    return int(value)


@command
def predict_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_predict_parser().parse_args(argv)
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    _predict(args, get_output_folder(args.d, args.tr, args.p, args.c))


@command
def predict_entry_point_modelfolder(argv: Sequence[str] | None = None) -> None:
    args = build_predict_from_modelfolder_parser().parse_args(argv)
    _predict(args, args.m)


def _predict(args: argparse.Namespace, model_folder: str) -> None:
    """Run the cheap checks first, then predict."""
    if not 0 < args.step_size <= 1:
        raise UsageError(f"-step_size is {args.step_size}; it must be above 0 and at most 1")
    if args.num_parts < 1 or not 0 <= args.part_id < args.num_parts:
        raise UsageError(f"-part_id is {args.part_id} with -num_parts {args.num_parts}; it must be 0 to NUM_PARTS - 1")
    if args.npp < 0 or args.nps < 0:
        raise UsageError(f"-npp is {args.npp} and -nps {args.nps}; both must be 0 or more")
    require_num_gpus(args.num_gpus)
    from dinov3.utils.devices import require_device_name, resolve_device
    from nnunetv2.inference.model_files import checkpoints_of_folds
    from nnunetv2.utilities.processes.output_lock import locked_output
    from nnunetv2.utilities.processes.shared_prediction import predict_in_processes

    require_device_name(args.device)
    checkpoints_of_folds(model_folder, args.f, args.chk)  # refused now instead of after importing torch
    log_the_first_process_only()
    device_type = resolve_device(args.device).type
    # For processes that are started here, this one holds the lock; otherwise the predictor locks a bit later.
    is_started_here = args.num_gpus > 1
    with locked_output(args.o, "predicting", shared=args.num_parts > 1) if is_started_here else nullcontext():
        predict_in_processes(_predict_share, (args, model_folder), args.num_gpus, device_type)


def _predict_share(args: argparse.Namespace, model_folder: str) -> list | None:
    """Load the model and predict all cases, or the share of this process."""
    import torch

    from dinov3.utils.processes.process_group import device_of_this_process, rank_and_world_size
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    rank, world_size = rank_and_world_size()
    device = torch.device(args.device)
    predictor = nnUNetPredictor(
        tile_step_size=args.step_size,
        use_mirroring=not args.disable_tta,
        perform_everything_on_device=not args.not_on_device,
        device=device_of_this_process(device) if world_size > 1 else device,
        verbose=args.verbose,
        verbose_preprocessing=args.verbose,
        allow_tqdm=not args.disable_progress_bar and rank == 0,
    )
    predictor.share = (rank, world_size)
    predictor.shares_output = None if args.num_gpus > 1 else args.num_parts > 1
    predictor.initialize_from_trained_model_folder(model_folder, args.f, args.chk)
    return predictor.predict_from_files(
        args.i,
        args.o,
        save_probabilities=args.save_probabilities,
        overwrite=not args.continue_prediction,
        num_processes_preprocessing=args.npp,
        num_processes_segmentation_export=args.nps,
        folder_with_segs_from_prev_stage=args.prev_stage_predictions,
        num_parts=args.num_parts,
        part_id=args.part_id,
    )


if __name__ == "__main__":
    sys.exit(predict_entry_point())
