"""Trains losses and resolutions against each other on synthetic fundus photographs, with equal plans, fold and steps.

    python benchmarks/thin_vessels.py --weights FILE [--steps 250] [--models unet segformer m2f] [--scales 1 2 4]
        [--losses dice_ce skeleton_recall soft_cldice] [--seeds 1 2] [--detail_branch] [--output FOLDER]
        [--table]

The images come from `synthetic_vessels.py`. Heads train LoRA on DINOv2 ViT-S; `--scales` are values of
`model.input_scale`, which the U-Net does not need. Each training is one command, which is printed; finished ones are
skipped. `--seeds` adds further trainings of every cell, `--detail_branch` the heads with that setting. `--table`
trains nothing: it scores the validated images of all finished trainings, for the vessels and their two kinds,
averages over the trainings of a cell, and times a training step of each cell on one batch, in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch
from short_trainings import FOLD, PLANS, UNET, Training, head_training, measure, summary_of, train, unet_training
from synthetic_vessels import write_dataset

from dinov3.utils.atomic_files import read_json, write_json

NUMBER, DATASET = "901", "Dataset901_SyntheticVessels"
CONFIGURATION, PATCH = "2d_crops", 64
NUM_IMAGES, SIZE = 20, 160
REGIONS = {"vessel": "1,2", "artery": "1", "vein": "2"}
METRICS = ("clDice", "RecallThin")
UNET_MODULES = {
    "dice_ce": UNET,
    "skeleton_recall": "nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerSkeletonRecall",
    "soft_cldice": "nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerSoftClDice",
}
# The rates at which heads learn in so few steps, see docs/heads.md.
RATES = {"segformer": "1e-3", "m2f": "3e-4"}


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    model: str
    scale: int
    has_detail_branch: bool
    loss: str
    seed: int | None
    """of the training; None: not seeded"""

    @property
    def name(self) -> str:
        """Unique in the grid."""
        detail = "_detail" if self.has_detail_branch else ""
        seed = "" if self.seed is None else f"_seed{self.seed}"
        return f"{self.model}_x{self.scale}{detail}_{self.loss}{seed}"

    def training(self, args: argparse.Namespace) -> Training:
        """Returns the command."""
        seed = [] if self.seed is None else ["--seed", str(self.seed)]
        common, results = (NUMBER, CONFIGURATION, FOLD, "-device", "cpu", *seed), args.output / "results" / self.name
        if self.model == "unet":
            return unet_training(UNET_MODULES[self.loss], common, args.steps, results)
        return head_training(self._settings(args.weights), common, args.steps, results)

    def _settings(self, weights: Path) -> list[str]:
        """Settings of a head; the losses for thin structures are added to its own."""
        return [
            f"model.head={self.model}",
            "model.backbone=dinov2",
            "model.backbone_size=small",
            f"model.checkpoint={weights}",
            "model.tuning=lora",
            f"model.input_scale={self.scale}",
            *(["model.detail_branch=true"] if self.has_detail_branch else []),
            *(["model.gradient_checkpointing=false"] if self.model == "m2f" else []),
            *([f"training.loss={self.loss}"] if self.loss != "dice_ce" else []),
            f"training.lr={RATES[self.model]}",
        ]


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """Yields the grid, one training of every cell after the other; the U-Net has one scale and no detail branch."""
    for seed, loss, model in product((None, *args.seeds), args.losses, args.models):
        if model == "unet":
            yield Cell(model, 1, False, loss, seed)
            continue
        for scale, has_detail_branch in product(args.scales, (False, True) if args.detail_branch else (False,)):
            yield Cell(model, scale, has_detail_branch, loss, seed)


def prepare() -> None:
    """Draws, plans and preprocesses the dataset, unless that was done."""
    raw, preprocessed = (Path(os.environ[name]) / DATASET for name in ("nnUNet_raw", "nnUNet_preprocessed"))
    plans_file = preprocessed / f"{PLANS}.json"
    if plans_file.is_file():
        return
    write_dataset(raw, NUM_IMAGES, 0, SIZE, seed=0)
    program = Path(sys.executable).parent / "nnUNetv2_plan_and_preprocess"
    subprocess.run([program, "-d", NUMBER, "-c", "2d", "--verify_dataset_integrity"], check=True)
    plans = read_json(plans_file)
    plans["configurations"][CONFIGURATION] = {"inherits_from": "2d", "patch_size": [PATCH, PATCH], "batch_size": 2}
    write_json(plans, plans_file)


def scores_of(name: str, training: Training, output: Path) -> dict[str, dict[str, float]]:
    """Mean scores of the validated images, by name of the region."""
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    file = output / "scores" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    program = Path(sys.executable).parent / "nnUNetv2_evaluate_folder"
    predictions, description = summary_of(training, DATASET).parent, preprocessed / "dataset.json"
    words = [preprocessed / "gt_segmentations", predictions, "-djfile", description, "-o", file]
    regions = [f"{region}={labels}" for region, labels in REGIONS.items()]
    command = [program, *words, "--chill", "-np", "1", "--metrics", *METRICS, "--regions", *regions]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary = read_json(file)
    return {region: summary["mean"][key] for region, key in summary["regions"].items()}


def table(trainings: Mapping[Cell, Training], output: Path, repeats: int) -> str:
    """Formats a Markdown table with one line per cell, its scores averaged over its trainings."""
    scores: dict[Cell, list[dict[str, dict[str, float]]]] = {}
    for cell, training in trainings.items():
        scores.setdefault(replace(cell, seed=None), []).append(scores_of(cell.name, training, output))
    one_of_each = {replace(cell, seed=None): training for cell, training in trainings.items()}
    facts = measure(list(one_of_each.values()), torch.device("cpu"), repeats)
    seconds = {cell: fact.seconds_per_step for cell, fact in zip(one_of_each, facts, strict=True)}
    lines = [
        "| model | scale | loss | trainings | vessel | artery / vein | clDice | thin centreline | s/step | relative |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell, of_trainings in scores.items():

        def mean(region: str, metric: str, of_trainings: list = of_trainings) -> str:
            return f"{statistics.fmean(each[region][metric] for each in of_trainings):.3f}"

        alone = seconds.get(replace(cell, loss="dice_ce"))
        relative = "" if alone is None else f"{seconds[cell] / alone:.2f}"
        quality = f"{mean('vessel', 'Dice')} | {mean('artery', 'Dice')} / {mean('vein', 'Dice')}"
        thin = f"{mean('vessel', 'clDice')} | {mean('vessel', 'RecallThin')}"
        scale = f"{cell.scale}, detail branch" if cell.has_detail_branch else str(cell.scale)
        name = f"{cell.model} | {scale} | {cell.loss} | {len(of_trainings)}"
        lines.append(f"| {name} | {quality} | {thin} | {seconds[cell]:.2f} | {relative} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="file of the weights of DINOv2 ViT-S")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--models", nargs="+", default=["unet", *RATES], choices=["unet", *RATES])
    parser.add_argument("--scales", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--losses", nargs="+", default=list(UNET_MODULES), choices=list(UNET_MODULES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="of further trainings of every cell")
    parser.add_argument("--detail_branch", action="store_true", help="also the heads with model.detail_branch=true")
    parser.add_argument("--output", type=Path, default=Path("thin_vessels_output"))
    parser.add_argument("--table", action="store_true", help="only compare finished trainings")
    parser.add_argument("--repeats", type=int, default=5, help="rounds in which steps are timed")
    args = parser.parse_args(argv)
    args.output, args.weights = args.output.resolve(), args.weights.resolve()
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(args.output / name)
        (args.output / name).mkdir(parents=True, exist_ok=True)
    os.environ["nnUNet_extTrainer"] = str(args.output / "trainers")
    os.environ.setdefault("nnUNet_n_proc_DA", "0")

    prepare()
    grid = {cell: cell.training(args) for cell in cells(args)}
    if not args.table:
        for training in grid.values():
            train(training, DATASET)
        return
    finished = {cell: training for cell, training in grid.items() if summary_of(training, DATASET).is_file()}
    text = table(finished, args.output, args.repeats)
    commands = "\n".join("    " + " ".join(training.command) for training in finished.values())
    (args.output / "table.md").write_text(f"{text}\n\n{commands}\n")
    print(text)


if __name__ == "__main__":
    main()
