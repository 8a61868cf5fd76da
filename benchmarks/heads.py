"""Compares Dice, seconds per step and parameters of all heads and the U-Net: same backbone, plans, fold and steps.

    python benchmarks/heads.py DATASET [key=value ...] --weights FILE [--steps 300] [--heads unet dpt ...]
        [--tunings frozen lora] [--configuration 2d] [--backbone dinov2] [--backbone_size small] [--output FOLDER]

The dataset must be preprocessed. Each training is one command, which is printed; its results go to a separate folder
below FOLDER, and finished trainings are skipped. `key=value` words apply to all heads; without `training.lr` among
them, each head has its own default rate, which the table names. Afterwards, training steps of all models are timed in
turn in this process, so that background load affects all equally; on the CPU, CPU time is measured. The table is
written to FOLDER/DATASET.md, together with the commands.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from short_trainings import (
    FOLD,
    STEPS_PER_EPOCH,
    UNET,
    Facts,
    Training,
    head_training,
    measure,
    summary_of,
    train,
    unet_training,
)

from dinov3.utils.atomic_files import read_json
from nnunetv2.utilities import extensions
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

HEADS = extensions.names("head")
# Settings of single heads: small models need not save memory by recomputing activations.
OWN_SETTINGS = {"m2f": ("model.gradient_checkpointing=false",), "fapm": ("model.gradient_checkpointing=false",)}


@dataclass(frozen=True)
class Model:
    """One row of the table."""

    head: str
    tuning: str
    training: Training


def models(args: argparse.Namespace) -> Iterator[Model]:
    """Yields the rows; the U-Net has no tuning."""
    common = (args.dataset, args.configuration, FOLD, "-device", args.device)
    if "unet" in args.heads:
        yield Model("unet", "full", unet_training(UNET, common, args.steps, args.output / "unet"))
    for head in (head for head in args.heads if head != "unet"):
        for tuning in args.tunings:
            own = [f"model.head={head}", f"model.tuning={tuning}", *OWN_SETTINGS.get(head, ())]
            settings = [*own, *backbone_settings(args), *args.settings]
            results = args.output / f"{head}_{tuning}"
            yield Model(head, tuning, head_training(settings, common, args.steps, results))


def backbone_settings(args: argparse.Namespace) -> list[str]:
    return [
        f"model.backbone={args.backbone}",
        f"model.backbone_size={args.backbone_size}",
        f"model.checkpoint={args.weights}",
    ]


def table(rows: Sequence[Model], dataset: str, measured: Sequence[Facts]) -> str:
    """Formats a Markdown table with one line per model."""
    lines = [
        "| head | tuning | learning rate | Dice | Dice of each class | s/step | parameters, trained / all (M) |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, facts in zip(rows, measured, strict=True):
        summary = read_json(summary_of(model.training, dataset))
        classes = " / ".join(f"{scores['Dice']:.3f}" for scores in summary["mean"].values())
        scores = f"{summary['foreground_mean']['Dice']:.3f} | {classes}"
        cost = f"{facts.seconds_per_step:.2f} | {facts.parameters}"
        lines.append(f"| {model.head} | {model.tuning} | {facts.learning_rate:g} | {scores} | {cost} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name or id of a preprocessed dataset")
    parser.add_argument("--weights", type=Path, required=True, help="file of backbone weights")
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--backbone", default="dinov2")
    parser.add_argument("--backbone_size", default="small")
    parser.add_argument("--steps", type=int, default=300, help=f"training steps, a multiple of {STEPS_PER_EPOCH}")
    parser.add_argument("--heads", nargs="+", default=["unet", *HEADS], choices=["unet", *HEADS])
    parser.add_argument("--tunings", nargs="+", default=["frozen", "lora"], choices=["frozen", "lora", "full"])
    parser.add_argument("--output", type=Path, default=Path("heads_output"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="rounds in which steps are timed")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of all heads")
    args = parser.parse_intermixed_args(argv)
    args.output, args.weights = args.output.resolve(), args.weights.resolve()

    os.environ["nnUNet_extTrainer"] = str(args.output / "trainers")
    os.environ.setdefault("nnUNet_n_proc_DA", "0")

    dataset = maybe_convert_to_dataset_name(args.dataset)
    rows = list(models(args))
    for model in rows:
        train(model.training, dataset)
    measured = list(measure([model.training for model in rows], torch.device(args.device), args.repeats))
    text = table(rows, dataset, measured)
    commands = "\n".join("    " + " ".join(model.training.command) for model in rows)
    (args.output / f"{dataset}.md").write_text(f"{text}\n\n{commands}\n")
    print(f"\n{dataset}, {args.steps} steps\n\n{text}")


if __name__ == "__main__":
    main()
