"""Folders of images and label maps in ADE20K's layout.

    ROOT/images/training/NAME.jpg      ROOT/annotations/training/NAME.png
    ROOT/images/validation/NAME.jpg    ROOT/annotations/validation/NAME.png

Images are .jpg, .png, .bmp or .tif with 8 bits per channel; label maps are .png files of the same size with one number
per pixel: the class, or 255 for ignored pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

from dinov3.eval.segmentation.data.image_files import read_image, read_mask
from dinov3.eval.segmentation.data.labels import labels_in_range
from dinov3.eval.segmentation.data.sample_files import pairs_of_folders, pairs_of_list
from dinov3.utils.errors import DataError, UsageError

if TYPE_CHECKING:
    from dinov3.eval.segmentation.config import SegmentationConfig

ADE20K_SPLITS = {"TRAIN": "training", "VAL": "validation"}
ADE20K_LIST = "ADE20K_object150_{}.txt"
"""Optional list of a split in ROOT: one image per line, as path below ROOT/images."""
ACCEPTED = (
    '"ADE20K:split=TRAIN", "ADE20K:split=VAL" or "Folder:split=NAME" (ROOT/images/NAME and ROOT/annotations/NAME)'
)


class Sample(NamedTuple):
    """One image of a dataset and its label map, as stored."""

    name: str
    """Name of the image file without suffix."""
    image: Tensor
    """(3, H, W) uint8, RGB."""
    label: Tensor
    """(H, W) int64."""


@dataclass(frozen=True)
class SegmentationDataset:
    """Images with label maps, read on demand.

    Reading an item raises `DataError` with the file's path if the image or the label map cannot be used, if their sizes
    differ or, with `num_classes`, if a label is out of range.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    num_classes: int | None = None
    reduce_zero_label: bool = False
    """Classes count from 1 in the files; only used to check labels, which are returned unchanged."""

    @property
    def names(self) -> list[str]:
        """The names of all samples."""
        return [path.stem for path in self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self.images[index], self.masks[index]
        image, label = read_image(image_path), read_mask(mask_path)
        if image.shape[-2:] != label.shape:
            raise DataError(_unequal_sizes(image_path, image, mask_path, label))
        if self.num_classes is not None:
            labels_in_range(label, self.num_classes, mask_path, reduce_zero_label=self.reduce_zero_label)
        return Sample(image_path.stem, image, label)


def make_dataset(
    descriptor: str,
    root: str | PathLike | None,
    *,
    num_classes: int | None = None,
    reduce_zero_label: bool = False,
) -> SegmentationDataset:
    """Finds the images and label maps of one split. Only file names are read.

    Args:
        descriptor: `ADE20K:split=TRAIN`, `ADE20K:split=VAL` or, for any other folder names, `Folder:split=NAME`. An
            appended `:root=PATH` overrides the argument `root`.
        root: the folder with `images` and `annotations`. If it contains ADE20K's list of a split
            (`ADE20K_object150_train.txt`, `ADE20K_object150_val.txt`), that list defines the split.
        num_classes: number of classes, to check the labels of each sample; None: no check.
        reduce_zero_label: labels count from 1, and 0 is ignored.

    Returns:
        The samples in natural order of their names (`frame2` before `frame10`).

    Raises:
        UsageError: the descriptor is unknown, or a folder does not exist.
        DataError: the folder has no images, an image has no label map or vice versa, or two images have the same name;
            the message names them.
    """
    name, settings = _parse(descriptor)
    split = settings.get("split", "")
    if name == "ADE20K" and split in ADE20K_SPLITS:
        folder, list_name = ADE20K_SPLITS[split], ADE20K_LIST.format(split.lower())
    elif name == "Folder" and split:
        folder, list_name = split, None
    else:
        raise UsageError(f"The dataset {descriptor!r} is not known; give {ACCEPTED}")
    root = settings.get("root", root)
    if root is None or str(root) == "":
        raise UsageError("There is no folder of data; set datasets.root to the folder with images/ and annotations/")
    image_folder, mask_folder = Path(root) / "images", Path(root) / "annotations"
    if list_name is not None and (Path(root) / list_name).is_file():
        pairs = pairs_of_list(Path(root) / list_name, image_folder, mask_folder)
    else:
        pairs = pairs_of_folders(image_folder / folder, mask_folder / folder)
    images, masks = zip(*pairs, strict=True)
    return SegmentationDataset(images, masks, num_classes, reduce_zero_label)


def dataset_of(config: SegmentationConfig, split: Literal["train", "val"]) -> SegmentationDataset:
    """Returns the training or validation dataset of a configuration; labels are checked when read.

    Raises:
        UsageError: No dataset is configured, or its folder does not exist.
        DataError: The folder has no images, or images and label maps do not match.
    """
    descriptor = getattr(config.datasets, split)
    if not descriptor:
        raise UsageError(
            f"No datasets.{split} was given; write for example datasets.{split}=ADE20K:split={split.upper()}"
        )
    return make_dataset(
        descriptor,
        config.datasets.root,
        num_classes=config.decoder_head.num_classes,
        reduce_zero_label=config.eval.reduce_zero_label,
    )


def _parse(descriptor: str) -> tuple[str, dict[str, str]]:
    name, *words = str(descriptor).split(":")
    settings = dict(word.partition("=")[::2] for word in words)
    if len(settings) < len(words) or not settings.keys() <= {"split", "root"}:
        raise UsageError(f"The dataset {descriptor!r} is not known; give {ACCEPTED}")
    return name, settings


def _unequal_sizes(image_path: Path, image: Tensor, mask_path: Path, label: Tensor) -> str:
    height, width = image.shape[-2:]
    is_turned = tuple(label.shape) == (width, height)
    hint = (
        " (the sides are swapped: if the image has a rotation in its EXIF data, apply and save it)" if is_turned else ""
    )
    return (
        f"{image_path} has {height} x {width} pixels (height x width), but its mask {mask_path} has "
        f"{label.shape[0]} x {label.shape[1]}{hint}; they must be equal"
    )
