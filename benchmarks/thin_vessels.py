"""Trains losses and resolutions against each other on synthetic fundus photographs, with equal plans, fold and steps.

    python benchmarks/thin_vessels.py --weights FILE [--steps 250] [--models unet segformer m2f] [--scales 1 2 4]
        [--losses dice_ce skeleton_recall soft_cldice] [--seeds 1 2] [--output FOLDER] [--table]

The images come from `synthetic_vessels.py`. Heads train LoRA on DINOv2 ViT-S; `--scales` are values of
`model.input_scale`, which the U-Net does not need. Each training is one command, which is printed; finished ones are
skipped. `--seeds` adds further trainings of every cell. `--table` trains nothing: it scores the validated images of
all finished trainings, for the vessels and their two kinds, averages over the trainings of a cell, and times a
training step of each cell on one batch, in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    loss: str
    seed: int | None
    """of the training; None: not seeded"""
    training: Training

    @property
    def name(self) -> str:
        """Unique in the grid."""
        return name_of(self.model, self.scale, self.loss, self.seed)


def name_of(model: str, scale: int, loss: str, seed: int | None) -> str:
    return f"{model}_x{scale}_{loss}" + ("" if seed is None else f"_seed{seed}")


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """Yields the grid, one training of every cell after the other; the U-Net has one scale."""
    for seed, loss, model in product((None, *args.seeds), args.losses, args.models):
        common = (NUMBER, CONFIGURATION, FOLD, "-device", "cpu", *([] if seed is None else ["--seed", str(seed)]))
        for scale in args.scales if model != "unet" else (1,):
            results = args.output / "results" / name_of(model, scale, loss, seed)
            if model == "unet":
                training = unet_training(UNET_MODULES[loss], common, args.steps, results)
            else:
                training = head_training(settings_of(model, scale, loss, args.weights), common, args.steps, results)
            yield Cell(model, scale, loss, seed, training)


def settings_of(model: str, scale: int, loss: str, weights: Path) -> list[str]:
    """Settings of a head; the losses for thin structures are added to its own."""
    return [
        f"model.head={model}",
        "model.backbone=dinov2",
        "model.backbone_size=small",
        f"model.checkpoint={weights}",
        "model.tuning=lora",
        f"model.input_scale={scale}",
        *(["model.gradient_checkpointing=false"] if model == "m2f" else []),
        *([f"training.loss={loss}"] if loss != "dice_ce" else []),
        f"training.lr={RATES[model]}",
    ]


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


def scores_of(cell: Cell, output: Path) -> dict[str, dict[str, float]]:
    """Mean scores of the validated images, by name of the region."""
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    predictions = summary_of(cell.training, DATASET).parent
    file = output / "scores" / f"{cell.name}.json"
    file.parent.mkdir(exist_ok=True)
    program = Path(sys.executable).parent / "nnUNetv2_evaluate_folder"
    words = [preprocessed / "gt_segmentations", predictions, "-djfile", preprocessed / "dataset.json", "-o", file]
    regions = [f"{name}={labels}" for name, labels in REGIONS.items()]
    command = [program, *words, "--chill", "-np", "1", "--metrics", *METRICS, "--regions", *regions]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary = read_json(file)
    return {name: summary["mean"][key] for name, key in summary["regions"].items()}


def table(grid: Sequence[Cell], output: Path, repeats: int) -> str:
    """Formats a Markdown table with one line per cell, its scores averaged over its trainings."""
    cells: dict[tuple[str, int, str], list[Cell]] = {}
    for training in grid:
        cells.setdefault((training.model, training.scale, training.loss), []).append(training)
    scores = [[scores_of(each, output) for each in trainings] for trainings in cells.values()]
    facts = list(measure([trainings[0].training for trainings in cells.values()], torch.device("cpu"), repeats))
    seconds = {key: fact.seconds_per_step for key, fact in zip(cells, facts, strict=True)}
    lines = [
        "| model | scale | loss | trainings | vessel | artery / vein | clDice | thin centreline | s/step | relative |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (model, scale, loss), of_trainings in zip(cells, scores, strict=True):

        def mean(region: str, metric: str, of_trainings: list = of_trainings) -> str:
            return f"{statistics.fmean(each[region][metric] for each in of_trainings):.3f}"

        alone = seconds.get((model, scale, "dice_ce"))
        relative = "" if alone is None else f"{seconds[model, scale, loss] / alone:.2f}"
        quality = f"{mean('vessel', 'Dice')} | {mean('artery', 'Dice')} / {mean('vein', 'Dice')}"
        thin = f"{mean('vessel', 'clDice')} | {mean('vessel', 'RecallThin')}"
        cost = f"{seconds[model, scale, loss]:.2f} | {relative}"
        lines.append(f"| {model} | {scale} | {loss} | {len(of_trainings)} | {quality} | {thin} | {cost} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="file of the weights of DINOv2 ViT-S")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--models", nargs="+", default=["unet", *RATES], choices=["unet", *RATES])
    parser.add_argument("--scales", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--losses", nargs="+", default=list(UNET_MODULES), choices=list(UNET_MODULES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="of further trainings of every cell")
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
    grid = list(cells(args))
    if not args.table:
        for cell in grid:
            train(cell.training, DATASET)
        return
    text = table([cell for cell in grid if summary_of(cell.training, DATASET).is_file()], args.output, args.repeats)
    commands = "\n".join("    " + " ".join(cell.training.command) for cell in grid)
    (args.output / "table.md").write_text(f"{text}\n\n{commands}\n")
    print(text)


if __name__ == "__main__":
    main()
