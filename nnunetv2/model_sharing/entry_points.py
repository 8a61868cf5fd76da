"""The commands that export, install and download trained models."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from nnunetv2.model_sharing.archive_members import DEFAULT_MAX_GB
from nnunetv2.utilities.command_line import command

logger = logging.getLogger(__name__)

_OVERWRITE_HELP = "replace installed models that differ; by default they are kept"


def print_license_warning() -> None:
    """Warn that the licence of the training data applies to the weights."""
    logger.warning(
        "The weights of a model may be used as the licence of its training data allows, which can exclude commercial "
        "use. Find out before you use them."
    )


def build_download_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_download_pretrained_model_by_url",
        description="Download a zip file with a trained model and install it in nnUNet_results.",
    )
    parser.add_argument("url", type=str, help="URL of the zip file: https://, or file://; http:// see --allow_http")
    parser.add_argument("--overwrite", action="store_true", help=_OVERWRITE_HELP)
    parser.add_argument(
        "--sha256",
        type=str,
        help="expected SHA-256 of the zip file, 64 hexadecimal digits; another file is rejected",
    )
    parser.add_argument(
        "--allow_http",
        action="store_true",
        help="allow http:// without --sha256: whoever is on the way can replace the file",
    )
    parser.add_argument(
        "--max_gb", type=float, default=DEFAULT_MAX_GB, help="largest file to download, GB; default: %(default)s"
    )
    return parser


def build_install_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_install_pretrained_model_from_zip",
        description="Install a trained model from a zip file in nnUNet_results.",
    )
    parser.add_argument("zip", type=str, help="zip file written by nnUNetv2_export_model_to_zip, ours or upstream's")
    parser.add_argument("--overwrite", action="store_true", help=_OVERWRITE_HELP)
    return parser


def build_export_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_export_model_to_zip", description="Write a trained model into a zip file, to share it."
    )
    add = parser.add_argument
    add("-d", type=str, required=True, help="dataset, by number or by name")
    add("-o", type=str, required=True, help="zip file to write")
    add(
        "-c",
        nargs="+",
        type=str,
        default=("3d_lowres", "3d_fullres", "2d", "3d_cascade_fullres"),
        help="configurations; default: %(default)s",
    )
    add("-tr", type=str, default="nnUNetTrainer", help="trainer; default: %(default)s")
    add("-p", type=str, default="nnUNetPlans", help="plans; default: %(default)s")
    add("-f", nargs="+", type=str, default=(0, 1, 2, 3, 4), help="folds, numbers or all; default: 0 1 2 3 4")
    add(
        "-chk",
        nargs="+",
        type=str,
        default=("checkpoint_final.pth",),
        help="file names of the checkpoints to export from each fold; default: checkpoint_final.pth",
    )
    add("--not_strict", action="store_true", help="skip configurations, folds and checkpoints that are missing")
    add("--exp_cv_preds", action="store_true", help="also export the segmentations of the cross-validation")
    add(
        "--merge_lora",
        action="store_true",
        help="merge LoRA adapters into the backbone: same predictions, faster, but rules out further training",
    )
    add(
        "--without_optimizer",
        action="store_true",
        help="drop the optimizer state: much smaller, but rules out further training",
    )
    return parser


@command
def download_by_url(argv: Sequence[str] | None = None) -> None:
    args = build_download_parser().parse_args(argv)
    from nnunetv2.model_sharing.model_download import download_and_install_from_url

    download_and_install_from_url(args.url, args.overwrite, args.sha256, allow_http=args.allow_http, max_gb=args.max_gb)
    print_license_warning()


@command
def install_from_zip_entry_point(argv: Sequence[str] | None = None) -> None:
    args = build_install_parser().parse_args(argv)
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    install_model_from_zip_file(args.zip, args.overwrite)


@command
def export_pretrained_model_entry(argv: Sequence[str] | None = None) -> None:
    args = build_export_parser().parse_args(argv)
    from nnunetv2.model_sharing.model_export import export_pretrained_model

    export_pretrained_model(
        args.d,
        args.o,
        configurations=args.c,
        trainer=args.tr,
        plans_identifier=args.p,
        folds=args.f,
        strict=not args.not_strict,
        save_checkpoints=args.chk,
        export_crossval_predictions=args.exp_cv_preds,
        merge_lora=args.merge_lora,
        without_optimizer=args.without_optimizer,
    )
