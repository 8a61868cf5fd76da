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
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from step_times import medians

from dinov3.utils.atomic_files import read_json
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.utilities import extensions
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

STEPS_PER_EPOCH = 50
VALIDATION_STEPS = 2
FOLD, PLANS = "0", "nnUNetPlans"

UNET_TRAINER = "nnUNetTrainer_counted_steps"
UNET_SOURCE = f'''"""nnU-Net's own training, with a given number of steps."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class {UNET_TRAINER}(nnUNetTrainer):
    num_epochs = {{epochs}}
    num_iterations_per_epoch = {STEPS_PER_EPOCH}
    num_val_iterations_per_epoch = {VALIDATION_STEPS}
'''

HEADS = extensions.names("head")
PROGRAM, TRAINER = "nnUNetv2_train_vit", "nnUNetTrainer_vit"
# Settings of single heads: small models need not save memory by recomputing activations.
OWN_SETTINGS = {"m2f": ("model.gradient_checkpointing=false",), "fapm": ("model.gradient_checkpointing=false",)}


@dataclass(frozen=True)
class Model:
    """One row of the table."""

    head: str
    tuning: str
    command: tuple[str, ...]
    trainer: str
    arguments: dict[str, Any]
    results: Path


def models(args: argparse.Namespace) -> Iterator[Model]:
    """Yields the rows; the U-Net has no tuning."""
    common = (args.dataset, args.configuration, FOLD, "-device", args.device)
    if "unet" in args.heads:
        folder = args.output / "unet"
        yield Model("unet", "full", ("nnUNetv2_train", *common, "-tr", UNET_TRAINER), UNET_TRAINER, {}, folder)
    for head in (head for head in args.heads if head != "unet"):
        for tuning in args.tunings:
            own = [f"model.head={head}", f"model.tuning={tuning}", *OWN_SETTINGS.get(head, ())]
            settings = [*own, *backbone_settings(args), *training_settings(args.steps), *args.settings]
            command = (PROGRAM, *common, *settings)
            arguments = {"overrides": settings}
            yield Model(head, tuning, command, TRAINER, arguments, args.output / f"{head}_{tuning}")


def backbone_settings(args: argparse.Namespace) -> list[str]:
    return [
        f"model.backbone={args.backbone}",
        f"model.backbone_size={args.backbone_size}",
        f"model.checkpoint={args.weights}",
    ]


def training_settings(steps: int) -> list[str]:
    return [
        f"training.num_epochs={steps // STEPS_PER_EPOCH}",
        f"training.num_iterations_per_epoch={STEPS_PER_EPOCH}",
        f"training.num_val_iterations_per_epoch={VALIDATION_STEPS}",
    ]


def summary_of(model: Model, dataset: str) -> Path:
    folder = model.results / dataset / f"{model.trainer}__{PLANS}__{model.command[2]}" / f"fold_{FOLD}"
    return folder / "validation" / "summary.json"


def train(model: Model, dataset: str) -> None:
    """Runs the command unless its result exists."""
    print("$", " ".join(model.command), flush=True)
    if summary_of(model, dataset).is_file():
        return
    model.results.mkdir(parents=True, exist_ok=True)
    program = Path(sys.executable).parent / model.command[0]
    environment = {**os.environ, "nnUNet_results": str(model.results)}
    with (model.results / "training.log").open("w") as log:
        subprocess.run([program, *model.command[1:]], env=environment, stdout=log, stderr=log, check=True)


@dataclass(frozen=True)
class Facts:
    """What is measured of a model without training it."""

    seconds_per_step: float
    parameters: str
    """trained / all, in millions"""
    learning_rate: float


def measure(rows: Sequence[Model], device: torch.device, repeats: int) -> dict[str, Facts]:
    """Measures the median time of a training step of each model on one batch; the models are timed in turn."""
    steps, parameters, rates = {}, {}, {}
    for model in rows:
        arguments = (model.trainer, PLANS, False, device, model.arguments)
        trainer = get_trainer_from_args(*model.command[1:4], *arguments)
        trainer.disable_checkpointing = True
        trainer.initialize()
        trainer.network.train()
        rates[str(model.results)] = trainer.initial_lr
        batch = next(trainer.get_dataloaders()[0])
        counts = [(p.numel(), p.requires_grad) for p in trainer.network.parameters()]
        trained = sum(number for number, is_trained in counts if is_trained)
        parameters[str(model.results)] = f"{trained / 1e6:.2f} / {sum(number for number, _ in counts) / 1e6:.2f}"
        steps[str(model.results)] = lambda trainer=trainer, batch=batch: trainer.train_step(batch)
    times = medians(steps, device, repeats)
    return {name: Facts(times[name]["ms"] / 1000, parameters[name], rates[name]) for name in steps}


def table(rows: Sequence[Model], dataset: str, measured: dict[str, Facts]) -> str:
    """Formats a Markdown table with one line per model."""
    lines = [
        "| head | tuning | learning rate | Dice | Dice of each class | s/step | parameters, trained / all (M) |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in rows:
        summary = read_json(summary_of(model, dataset))
        classes = " / ".join(f"{scores['Dice']:.3f}" for scores in summary["mean"].values())
        facts, scores = measured[str(model.results)], f"{summary['foreground_mean']['Dice']:.3f} | {classes}"
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

    trainers = args.output / "trainers"
    trainers.mkdir(parents=True, exist_ok=True)
    (trainers / f"{UNET_TRAINER}.py").write_text(UNET_SOURCE.format(epochs=args.steps // STEPS_PER_EPOCH))
    os.environ["nnUNet_extTrainer"] = str(trainers)
    os.environ.setdefault("nnUNet_n_proc_DA", "0")

    dataset = maybe_convert_to_dataset_name(args.dataset)
    rows = list(models(args))
    for model in rows:
        train(model, dataset)
    text = table(rows, dataset, measure(rows, torch.device(args.device), args.repeats))
    commands = "\n".join("    " + " ".join(model.command) for model in rows)
    (args.output / f"{dataset}.md").write_text(f"{text}\n\n{commands}\n")
    print(f"\n{dataset}, {args.steps} steps\n\n{text}")


if __name__ == "__main__":
    main()
