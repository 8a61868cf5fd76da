"""Writes a raw dataset of synthetic fundus photographs: thin vessels of two kinds that only their course tells apart.

    python benchmarks/synthetic_vessels.py RAW_DATASET_FOLDER [--train 16] [--test 6] [--size 192] [--seed 0]

Trees of tubes grow from a disc and split by Murray's law, from 6 pixels of width down to 1. Arteries run straight,
veins wind with a period of 16 pixels; colour, contrast and width are those of both, so that a kind is known only from
a stretch of a vessel. A circle is the field of view; outside of it the label is `ignore`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from dinov3.utils.atomic_files import write_json

LABELS = {"background": 0, "artery": 1, "vein": 2, "ignore": 3}
LARGEST, SMALLEST = 6.0, 1.0  # widths in pixels
MURRAY = 2.5  # exponent of the widths at a fork; 3 in theory, less in retinas
STEP = 0.5  # pixels between the points of a centreline
PERIOD, SWING = 16.0, 0.9  # of a vein: pixels, and radians of its heading
BACKGROUND = np.array([0.80, 0.45, 0.25])
CONTRAST = np.array([0.20, 0.45, 0.25])  # share of each colour that a vessel takes away
NOISE = 0.03


@dataclass(frozen=True)
class Branch:
    """Where a vessel goes on."""

    y: float
    x: float
    heading: float
    width: float


def grow(root: Branch, *, winds: bool, size: int, rng: np.random.Generator) -> Iterator[tuple[float, float, float]]:
    """Yields points (y, x, width) of the centrelines of a tree, all in pixels."""
    open_branches = [root]
    while open_branches:
        branch = open_branches.pop()
        y, x, heading = branch.y, branch.x, branch.heading
        phase = rng.uniform(0, 2 * math.pi)
        length = rng.uniform(5, 9) * (2 + branch.width)
        for number in range(int(length / STEP)):
            swing = SWING * math.sin(2 * math.pi * number * STEP / PERIOD + phase) if winds else 0.0
            y += STEP * math.sin(heading + swing)
            x += STEP * math.cos(heading + swing)
            heading += rng.normal(0, 0.02)
            if not (0 <= y < size and 0 <= x < size):
                break
            yield y, x, branch.width
        else:
            share = rng.uniform(0.3, 0.7)
            for part, side in ((share, 1), (1 - share, -1)):
                width = branch.width * part ** (1 / MURRAY)
                if width >= SMALLEST:
                    open_branches.append(Branch(y, x, heading + side * rng.uniform(0.3, 0.7), width))


def coverage_of(points: Sequence[tuple[float, float, float]], size: int) -> np.ndarray:
    """Share of each pixel (size, size) that lies inside the tubes, 0 to 1."""
    covered = np.zeros((size, size))
    reach = math.ceil(LARGEST / 2) + 1
    for y, x, width in points:
        rows = slice(max(int(y) - reach, 0), min(int(y) + reach + 1, size))
        columns = slice(max(int(x) - reach, 0), min(int(x) + reach + 1, size))
        grid_y, grid_x = np.mgrid[rows, columns]
        distance = np.hypot(grid_y - y, grid_x - x)
        inside = np.clip(width / 2 + 0.5 - distance, 0, 1)
        part = covered[rows, columns]
        np.maximum(part, inside, out=part)
    return covered


def draw(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws a photograph: RGB (size, size, 3) and labels (size, size), both uint8."""
    disc_y, disc_x = rng.uniform(0.35, 0.65) * size, rng.choice([0.2, 0.8]) * size
    towards = 0.0 if disc_x < size / 2 else math.pi
    kinds = {name: np.zeros((size, size)) for name in ("artery", "vein")}
    angles = towards + np.linspace(-1.2, 1.2, 4) + rng.uniform(-0.2, 0.2, 4)
    first = rng.integers(2)
    for number, angle in enumerate(angles):
        name = ("artery", "vein")[(number + first) % 2]
        root = Branch(disc_y, disc_x, float(angle), rng.uniform(0.7, 1) * LARGEST)
        points = list(grow(root, winds=name == "vein", size=size, rng=rng))
        np.maximum(kinds[name], coverage_of(points, size), out=kinds[name])
    grid_y, grid_x = np.mgrid[:size, :size] / (size - 1) - 0.5
    field = np.hypot(grid_y, grid_x) <= 0.48  # noqa: PLR2004 - of the width
    vessels = np.maximum(*kinds.values())
    light = 1 - 0.4 * (grid_y**2 + grid_x**2) + ndimage.gaussian_filter(rng.normal(size=(size, size)), size / 10) * 2
    picture = BACKGROUND * light[..., None] * (1 - CONTRAST * vessels[..., None])
    disc = np.exp(
        -((np.hypot(grid_y * size - disc_y + size / 2, grid_x * size - disc_x + size / 2) / (0.07 * size)) ** 4)
    )
    picture += 0.25 * disc[..., None] * (1 - vessels[..., None])
    picture = ndimage.gaussian_filter(picture, (0.7, 0.7, 0)) + rng.normal(0, NOISE, picture.shape)
    labels = np.zeros((size, size), np.uint8)
    labels[kinds["vein"] >= 0.5] = LABELS["vein"]  # noqa: PLR2004 - half of the pixel
    labels[kinds["artery"] >= 0.5] = LABELS["artery"]  # noqa: PLR2004 - arteries cross above veins
    labels[~field] = LABELS["ignore"]
    return (np.clip(picture * field[..., None], 0, 1) * 255).astype(np.uint8), labels


def write_dataset(folder: Path, num_train: int, num_test: int, size: int, seed: int) -> None:
    """Draws a raw dataset into a new folder."""
    rng = np.random.default_rng(seed)
    for part, number in (("Tr", num_train), ("Ts", num_test)):
        for kind in ("images", "labels"):
            (folder / f"{kind}{part}").mkdir(parents=True)
        for case in range(number):
            picture, labels = draw(size, rng)
            name = f"eye_{part}_{case:02}"
            Image.fromarray(picture).save(folder / f"images{part}" / f"{name}_0000.png")
            Image.fromarray(labels).save(folder / f"labels{part}" / f"{name}.png")
    write_json(
        {
            "channel_names": {"0": "R", "1": "G", "2": "B"},
            "labels": LABELS,
            "numTraining": num_train,
            "file_ending": ".png",
        },
        folder / "dataset.json",
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the raw dataset, DatasetNNN_NAME")
    parser.add_argument("--train", type=int, default=16)
    parser.add_argument("--test", type=int, default=6)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    write_dataset(args.folder, args.train, args.test, args.size, args.seed)


if __name__ == "__main__":
    main()
