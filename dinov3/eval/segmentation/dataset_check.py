"""Reads a whole dataset once before a long training: checks that every file is usable and counts the classes.

python -m dinov3.eval.segmentation.dataset_check config=FILE datasets.root=FOLDER decoder_head.num_classes=3
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dinov3.utils.command_line import command
from dinov3.utils.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from dinov3.eval.segmentation.data.dataset import SegmentationDataset

logger = logging.getLogger(__name__)

FILES_AT_ONCE = 4  # threads; Pillow reads without holding the interpreter's lock


@dataclass(frozen=True)
class DatasetSummary:
    """Content of a dataset. Classes are numbered as in the model, after `reduce_zero_label`."""

    num_images: int
    height_range: tuple[int, int]
    """Smallest and largest height, in pixels."""
    width_range: tuple[int, int]
    """Smallest and largest width, in pixels."""
    pixels_per_class: tuple[int, ...]
    images_per_class: tuple[int, ...]
    """Number of images in which each class occurs."""
    num_ignored_pixels: int

    @property
    def absent_classes(self) -> list[int]:
        """Classes without a single pixel."""
        return [index for index, pixels in enumerate(self.pixels_per_class) if pixels == 0]

    def lines(self) -> list[str]:
        """The summary as text, one line per class."""
        total = sum(self.pixels_per_class) + self.num_ignored_pixels
        text = [
            f"{self.num_images} images, height {self.height_range[0]} to {self.height_range[1]}, "
            f"width {self.width_range[0]} to {self.width_range[1]} pixels, "
            f"{self.num_ignored_pixels / total:.2%} of them ignored"
        ]
        for index, (pixels, images) in enumerate(zip(self.pixels_per_class, self.images_per_class, strict=True)):
            text.append(f"  class {index}: {pixels / total:.2%} of the pixels, in {images} images")
        if self.absent_classes:
            text.append(f"  never occurs: {', '.join(map(str, self.absent_classes))}")
        if self.num_ignored_pixels and len(self.absent_classes) >= len(self.pixels_per_class) - 1:
            text.append(
                "  warning: next to ignored pixels there is at most one class; masks of 0 and 255 "
                "have to be written as 0 and 1"
            )
        return text


def check_dataset(dataset: SegmentationDataset, num_classes: int, reduce_zero_label: bool = False) -> DatasetSummary:
    """Reads all images and label maps.

    Args:
        num_classes: K.
        reduce_zero_label: classes count from 1 in the files and 0 is ignored.

    Raises:
        DataError: an image or label map cannot be used; the message names the first such file, in the dataset's order,
            and the reason.
    """
    import dataclasses
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    checked = dataclasses.replace(dataset, num_classes=num_classes, reduce_zero_label=reduce_zero_label)
    first_class = 1 if reduce_zero_label else 0

    def counts_and_size(index: int) -> tuple[np.ndarray, tuple[int, int]]:
        label = checked[index].label.numpy()
        counts = np.bincount(label.ravel(), minlength=256)
        return counts[first_class : first_class + num_classes], label.shape

    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        counts, sizes = map(np.array, zip(*threads.map(counts_and_size, range(len(checked))), strict=True))
    pixels = counts.sum(axis=0)
    return DatasetSummary(
        num_images=len(checked),
        height_range=(int(sizes[:, 0].min()), int(sizes[:, 0].max())),
        width_range=(int(sizes[:, 1].min()), int(sizes[:, 1].max())),
        pixels_per_class=tuple(pixels.tolist()),
        images_per_class=tuple((counts > 0).sum(axis=0).tolist()),
        num_ignored_pixels=int(sizes.prod(axis=1).sum() - pixels.sum()),
    )


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m dinov3.eval.segmentation.dataset_check",
        description="Reads every image and label map of a dataset and names the first file that cannot be used.",
        epilog="Example: datasets.root=/data/cells datasets.train=Folder:split=train datasets.val=Folder:split=val "
        "decoder_head.num_classes=3 eval.reduce_zero_label=false",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="config=FILE | key=value",
        help="the words that dinov3.eval.segmentation.run is started with",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Checks the training and validation splits of a configuration and logs their content."""
    words = build_parser().parse_args(argv).words
    from dinov3.eval.segmentation.config import load_segmentation_config
    from dinov3.eval.segmentation.data.dataset import make_dataset

    config = load_segmentation_config(words)
    splits = {name: getattr(config.datasets, name) for name in ("train", "val")}
    if not any(splits.values()):
        raise UsageError("No dataset was given; set datasets.train or datasets.val, for example ADE20K:split=TRAIN")
    for name, descriptor in splits.items():
        if descriptor:
            dataset = make_dataset(descriptor, config.datasets.root)
            summary = check_dataset(dataset, config.decoder_head.num_classes, config.eval.reduce_zero_label)
            logger.info("datasets.%s=%s: %s", name, descriptor, "\n".join(summary.lines()))


if __name__ == "__main__":
    sys.exit(main())
