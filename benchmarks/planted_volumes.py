"""Trains heads on volumes whose labels are written in another slice, so that a model of single slices has to guess.

    python benchmarks/planted_volumes.py FOLDER [--heads upernet segformer] [--steps 300] [--seed 0] [--table]

Columns of squares run through each volume. In every slice a square is bright or dark, by a fair coin; its label, 1 or
2, tells which it is in the next slice. Whoever sees one slice finds every square and guesses its class: a mean Dice of
at most 0.5. Three datasets are written: the class in the next slice, in the one before, and the first with the slices
along the last axis of the files. Trainings are commands, which are printed; finished ones are skipped. `--table` only
prints the Dice of the validated volumes, which no training has seen.

The transformer is the miniature of this repository, from random weights. Mirroring along the depth would exchange the
slice before and the one after, so that it is off.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from short_trainings import FOLD, Training, head_training, summary_of, train

from dinov3.utils.atomic_files import read_json, write_json
from nnunetv2.utilities import extensions
from tests.model.heads.small import SMALL

SHAPE, CELL, CASES = (8, 64, 64), 16, 25
SPACING = (3.0, 1.0, 1.0)  # mm, along the axes of SHAPE
LABELS = {"background": 0, "bright_there": 1, "dark_there": 2}
NOISE = 0.1
# Number and name of each dataset, where the class stands, and the order of the axes in the files.
DATASETS = {
    "next": (911, "Dataset911_NextSlice", 1, (0, 1, 2)),
    "before": (912, "Dataset912_SliceBefore", -1, (0, 1, 2)),
    "permuted": (913, "Dataset913_SlicesLast", 1, (1, 2, 0)),
}
COMMON = (
    "model.backbone_size=tiny",
    "model.pretrained=false",
    "model.tuning=full",
    "training.backbone_lr_multiplier=1",
    "training.lr=1e-3",
)
ALONE = "model.slice_input=single"
# Settings beside the default ones: what each way of mixing slices can do alone, and what no mixing cannot.
WAYS = {
    "default": (),
    "neighbours alone": ("model.fusion=none",),
    "conv alone": (ALONE, "model.fusion=conv"),
    "attention alone": (ALONE, "model.fusion=attention"),
    "single slices": (ALONE, "model.fusion=none"),
}
# On 2-D patches.
OF_IMAGES = {"single slices": (), "three slices": ("model.context_slices=3",)}


@dataclass(frozen=True)
class Row:
    """One training."""

    head: str
    way: str
    dataset: str
    configuration: str

    def training(self, args: argparse.Namespace) -> Training:
        number, _, _, _ = DATASETS[self.dataset]
        small = {**SMALL[self.head], **({"hidden_size": 64} if self.head == "upernet" else {})}
        words = [f"model.head={self.head}", *(f"model.{name}={value}" for name, value in small.items())]
        is_flat = self.configuration == "2d"
        words += [*COMMON, *(OF_IMAGES if is_flat else WAYS)[self.way]]
        words += [] if is_flat else ["training.mirror_axes=[1,2]"]
        name = "_".join((self.head, self.way, self.dataset, self.configuration, str(args.steps))).replace(" ", "_")
        common = (str(number), self.configuration, FOLD, "-device", "cpu", "--seed", str(args.seed))
        return head_training([word.replace(" ", "") for word in words], common, args.steps, args.folder / name)


def planted_volume(rng: np.random.Generator, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image (D, H, W) and its labels; squares without a slice to be told by are half as wide, unlabelled."""
    depth, rows, columns = SHAPE[0], SHAPE[1] // CELL, SHAPE[2] // CELL
    bright = rng.random((depth, rows, columns)) < 0.5
    image, labels = rng.normal(0, NOISE, SHAPE), np.zeros(SHAPE, dtype=np.uint8)
    for z, row, column in np.ndindex(bright.shape):
        is_told = 0 <= z + offset < depth
        margin = CELL // 8 if is_told else CELL // 4 + CELL // 8
        square = tuple(slice(at * CELL + margin, (at + 1) * CELL - margin) for at in (row, column))
        image[(z, *square)] += 2 if bright[z, row, column] else 1
        if is_told:
            labels[(z, *square)] = 1 if bright[z + offset, row, column] else 2
    return image.astype(np.float32), labels


def write_dataset(folder: Path, offset: int, order: Sequence[int], seed: int) -> None:
    """Writes the raw dataset; `order` is that of the axes in the files' arrays (z, y, x)."""
    import SimpleITK as sitk

    rng = np.random.default_rng(seed)
    for case in range(CASES):
        for part, ending, array in zip(
            ("imagesTr", "labelsTr"), ("_0000", ""), planted_volume(rng, offset), strict=True
        ):
            stored = sitk.GetImageFromArray(array.transpose(order))
            stored.SetSpacing([SPACING[axis] for axis in reversed(order)])
            (folder / part).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(stored, str(folder / part / f"case_{case:02d}{ending}.nii.gz"))
    content = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": CASES, "file_ending": ".nii.gz"}
    write_json(content, folder / "dataset.json")


def prepare(seed: int) -> None:
    """Writes and preprocesses the datasets that do not exist yet."""
    for number, name, offset, order in DATASETS.values():
        raw = Path(os.environ["nnUNet_raw"], name)
        if not (raw / "dataset.json").is_file():
            write_dataset(raw, offset, order, seed)
        if not Path(os.environ["nnUNet_preprocessed"], name, "nnUNetPlans_3d_fullres").is_dir():
            program = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
            subprocess.run([program, "-d", str(number), "-c", "2d", "3d_fullres"], check=True)


def rows(heads: Sequence[str]) -> Iterator[Row]:
    """Every head by default; the first one in every way, direction and order of axes, and on slices."""
    for head in heads:
        yield Row(head, "default", "next", "3d_fullres")
    first = heads[0]
    for way in list(WAYS)[1:]:
        yield Row(first, way, "next", "3d_fullres")
    for way in OF_IMAGES:
        yield Row(first, way, "next", "2d")
    for dataset in ("before", "permuted"):
        yield Row(first, "default", dataset, "3d_fullres")
        yield Row(first, "three slices", dataset, "2d")


def dice(training: Training, dataset: str) -> tuple[float, int]:
    """Mean Dice of the two classes over the validated volumes, and their number."""
    summary = read_json(summary_of(training, dataset))
    return summary["foreground_mean"]["Dice"], len(summary["metric_per_case"])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    others = [head for head in extensions.names("head") if head != "upernet"]
    parser.add_argument("folder", type=Path, help="for datasets and results")
    parser.add_argument("--heads", nargs="+", default=["upernet", *others])
    parser.add_argument("--steps", type=int, default=300, help="of each training, a multiple of 50 (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of datasets and trainings (default: 0)")
    parser.add_argument("--table", action="store_true", help="only print the scores of what is trained")
    args = parser.parse_args(argv)
    for variable in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{variable}"] = str(args.folder / variable)
    if not args.table:
        prepare(args.seed)
    print("| head | slices | class stands in | configuration | steps | mean Dice | volumes |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for row in rows(args.heads):
        training, name = row.training(args), DATASETS[row.dataset][1]
        if not args.table:
            train(training, name)
        if summary_of(training, name).is_file():
            mean, number = dice(training, name)
            cells = (row.head, row.way, row.dataset, row.configuration, args.steps, f"{mean:.3f}", number)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
