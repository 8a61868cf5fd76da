"""The command nnUNetv2_import_images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunetv2.configuration import get_default_num_processes
from nnunetv2.errors import UsageError
from nnunetv2.utilities.command_line import command

_LAYOUTS = (
    "auto",
    "pairs",
    "ade20k",
    "voc",
    "cvat",
    "roboflow",
    "coco",
    "labelme",
    "yolo",
    "per_class",
    "channels",
)  # fmt: skip - named here as well, because `-h` must not load them

_FOR_DATASETS_ONLY = (
    "test_images",
    "test_masks",
    "group",
    "folds",
    "regions",
    "fov",
    "crop_fov",
    "add",
    "preview",
    "masks",
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_import_images",
        description="Import a folder of 2-D pictures and masks (PNG, JPEG, TIFF, GIF, BMP; exports of annotation "
        "tools) as a raw dataset.",
        allow_abbrev=False,  # --crop is another flag than --crop_fov
    )
    _add_places(parser)
    _add_label_flags(parser)
    _add_dataset_flags(parser)
    _add_prediction_flags(parser)
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-d", type=int, default=None, metavar="ID", dest="dataset_id", help="free number of the dataset"
    )
    parser.add_argument("-n", type=str, default=None, metavar="NAME", dest="name", help="its name, like Vessels")
    parser.add_argument(
        "-i",
        type=str,
        default=None,
        metavar="PICTURES",
        dest="images",
        help="folder of pictures, an export (see --layout), or a table image,mask[,fov][,group] (.csv)",
    )
    parser.add_argument(
        "-m", type=str, default=None, metavar="MASKS", dest="masks", help="folder of masks, or the JSON file of COCO"
    )
    parser.add_argument(
        "-ti", type=str, default=None, metavar="PICTURES", dest="test_images", help="the same for imagesTs"
    )
    parser.add_argument("-tm", type=str, default=None, metavar="MASKS", dest="test_masks", help="the same for labelsTs")
    parser.add_argument(
        "--layout",
        choices=_LAYOUTS,
        default="auto",
        help="how the files lie; auto needs exactly one that fits (default)",
    )
    parser.add_argument(
        "--pair",
        default=None,
        metavar="REGEX",
        help="its group 1 of both names is the case; default: equal names, then equal names without endings such as "
        "_mask, then the only number",
    )
    parser.add_argument(
        "--images_without_mask",
        choices=("skip", "test"),
        default=None,
        help="leave pictures without mask out, or make them test images; default: an error",
    )


def _add_label_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        nargs="+",
        default=(),
        metavar="NAME=COLOUR_OR_VALUE",
        help="#rrggbb, a value (255) or a range (128-255) for each class; 'ignore' becomes the last label, and black "
        "is background; with --layout channels R, G or B. Not needed for binary masks",
    )
    parser.add_argument(
        "--regions", nargs="+", default=(), metavar="NAME=CLASS+CLASS", help="train regions of several classes"
    )
    parser.add_argument(
        "--threshold", type=int, default=None, metavar="N", help="binary masks: N and more, of 255, is foreground (128)"
    )
    parser.add_argument(
        "--snap",
        type=float,
        default=None,
        metavar="D",
        help="a colour belongs to the nearest of --labels within this distance in RGB; default: 0, for JPEG masks 48",
    )
    parser.add_argument(
        "--overlap",
        default=None,
        metavar="NAME",
        help="class of pixels in several channels (default there: crossing) or in the masks of several classes "
        "(default there: the later class)",
    )
    parser.add_argument(
        "--reduce_zero_label", action="store_true", help="ade20k: value 0 is no class but ignored, as in mmsegmentation"
    )


def _add_dataset_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fov",
        nargs="+",
        default=(),
        metavar="FOLDER",
        help="fields of view, paired like masks (a second folder is that of -ti), or auto: the largest piece that is "
        "not dark",
    )
    parser.add_argument(
        "--outside",
        choices=("ignore", "background"),
        default="ignore",
        help="label outside of the field of view (default: %(default)s)",
    )
    parser.add_argument(
        "--crop_fov", action="store_true", help="cut pictures to their field of view; import.csv keeps where"
    )
    parser.add_argument(
        "--group",
        default=None,
        metavar="REGEX_OR_CSV",
        help="cases with the same group share a fold: the expression's first group in the name, or a table case,group",
    )
    parser.add_argument("--folds", type=int, default=None, metavar="N", help="folds of splits_final.json (default: 5)")
    parser.add_argument(
        "--grey", choices=("repeat", "refuse"), default="repeat", help="grey among coloured pictures (default: repeat)"
    )
    parser.add_argument(
        "--alpha", choices=("drop", "refuse"), default="drop", help="alpha channels that are opaque (default: drop)"
    )
    parser.add_argument(
        "--depth",
        choices=("keep", "16"),
        default="keep",
        help="16 scales all pictures to 16 bits, for sets of mixed depth (default: keep)",
    )
    parser.add_argument(
        "--norm",
        choices=("plans", "rgb_to_0_1"),
        default="plans",
        help="intensities: per picture to mean 0 and deviation 1, or 0 to 1 as model.input_norm=imagenet needs "
        "(default: plans)",
    )
    parser.add_argument("--add", action="store_true", help="add cases to a dataset of the same labels and channels")
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset of the same number and name")
    parser.add_argument("--dry_run", action="store_true", help="list cases and warnings, and write nothing")
    parser.add_argument(
        "--preview", type=int, default=0, metavar="N", help="draw the outlines of N cases and of those with warnings"
    )
    parser.add_argument(
        "-np",
        type=int,
        default=get_default_num_processes(),
        dest="num_processes",
        help="maximum number of processes; default: %(default)s",
    )


def _add_prediction_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--predictions",
        action="store_true",
        help="-i holds pictures that another program predicted; write label maps for nnUNetv2_compare -m",
    )
    parser.add_argument(
        "-o",
        type=str,
        default=None,
        metavar="FOLDER",
        dest="output",
        help="with --predictions: where to; default: nnUNet_results/DATASET/NAME of -d and -n",
    )
    parser.add_argument(
        "--crop",
        type=int,
        nargs=4,
        default=None,
        metavar=("Y", "X", "HEIGHT", "WIDTH"),
        help="with --predictions: the part that counts, of pictures that were padded",
    )
    parser.add_argument(
        "--full_grid",
        action="store_true",
        help="with --predictions: bring cases that --crop_fov cut back to the size of their picture",
    )


@command
def import_images_entry(argv: Sequence[str] | None = None) -> None:
    from nnunetv2.dataset_conversion.import_images.settings import Settings

    flags = vars(build_parser().parse_args(argv))
    is_prediction = flags.pop("predictions")
    output, crop, full_grid = flags.pop("output"), flags.pop("crop"), flags.pop("full_grid")
    settings = Settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in flags.items()})
    if is_prediction:
        from nnunetv2.dataset_conversion.import_images.prediction_import import PredictionSettings, import_predictions

        if given := [name for name in _FOR_DATASETS_ONLY if flags[name]]:
            raise UsageError(f"--predictions only reads -i; leave out {', '.join(given)}")
        import_predictions(PredictionSettings(settings, output, None if crop is None else tuple(crop), full_grid))
        return
    if output is not None or crop is not None or full_grid:
        raise UsageError("-o, --crop and --full_grid belong to --predictions; add it, or leave them out")
    from nnunetv2.dataset_conversion.import_images.import_dataset import import_dataset

    import_dataset(settings)
