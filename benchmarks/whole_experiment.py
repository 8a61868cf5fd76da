"""Runs a complete nnU-Net experiment with console commands only, for the nnunetv2 that the commands belong to.

    python benchmarks/whole_experiment.py BIN RAW_DATASET FOLDER [--cases 20] [--iterations 60]
    python benchmarks/compare_experiments.py FOLDER_OF_UPSTREAM FOLDER_OF_OURS

BIN is the folder with the commands (`bin` of a virtual environment), RAW_DATASET a raw dataset with 3-D images, for
example Dataset004_Hippocampus. In FOLDER: planning and preprocessing; five folds of a small 2-D and a small 3-D U-Net
with a trainer from `nnUNet_extTrainer`, `--npz`; nnUNetv2_find_best_configuration; the commands in its
inference_instructions.txt verbatim; nnUNetv2_ensemble of both models; export, installation under another
`nnUNet_results`, and the same prediction from there, which must be identical. Trainings are seeded, so the numbers of
two environments can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

TRAINER = "ShortTrainer"
PLANS = "nnUNetPlans"
FOLDS = ("0", "1", "2", "3", "4")
NUM_TEST_CASES = 2
SMALL = {  # configuration: parent, patch, batch size, channels of the stages
    "2d_tiny": ("2d", [56, 40], 12, [8, 16, 32]),
    "3d_tiny": ("3d_fullres", [40, 56, 40], 2, [8, 16, 32]),
}
TRAINER_SOURCE = f"""
import random

import numpy as np
import torch

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class {TRAINER}(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 2
        self.num_iterations_per_epoch = {{iterations}}
        self.num_val_iterations_per_epoch = 2
        self.initial_lr = 1e-2
        self.oversample_foreground_percent = 1.0
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(1234)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)
"""


ONE_CORE_SOURCE = "import os\n\nos.cpu_count = lambda: 1\n"  # run at Python's start, as sitecustomize.py


@dataclass(frozen=True)
class Experiment:
    """Folders and environment of one run, and execution of its commands."""

    commands: Path
    folder: Path
    dataset: str

    @property
    def number(self) -> str:
        return str(int(self.dataset[len("Dataset") :].split("_")[0]))

    def environment(self, results: str) -> dict[str, str]:
        """Environment for a single thread: upstream starts one per core, so `os.cpu_count` is patched to 1."""
        roots = {f"nnUNet_{name}": str(self.folder / name) for name in ("raw", "preprocessed")}
        ours = {
            "nnUNet_results": str(self.folder / results),
            "nnUNet_extTrainer": str(self.folder / "trainers"),
            "nnUNet_n_proc_DA": "0",
            "nnUNet_def_n_proc": "1",
            "nnUNet_npp": "0",
            "nnUNet_nps": "0",
            "nnUNet_compile": "f",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self.folder / "one_core"),
            "MPLBACKEND": "Agg",
        }
        return {**os.environ, **roots, **ours}

    def run(self, command: Sequence[str], results: str = "results", **variables: str) -> None:
        """Runs one command, prints its CPU seconds, and exits if it fails."""
        name, *words = command
        used = _cpu_seconds()
        log = self.folder / "log.txt"
        with log.open("a") as file:
            file.write(f"\n$ {' '.join(command)}\n")
            file.flush()
            environment = {**self.environment(results), **variables}
            code = subprocess.run(
                [str(self.commands / name), *words],
                env=environment,
                cwd=self.folder,
                stdout=file,
                stderr=subprocess.STDOUT,
            ).returncode
        print(f"{_cpu_seconds() - used:7.1f} CPU s  {' '.join(command)}".replace(str(self.folder), "."), flush=True)
        if code != 0:
            sys.exit(f"exit code {code}; the output is in {log}")


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def copy_dataset(source: Path, experiment: Experiment, num_cases: int) -> None:
    """Copies the first cases as training cases and the next ones as test images."""
    target = experiment.folder / "raw" / experiment.dataset
    description = json.loads((source / "dataset.json").read_text())
    ending = description["file_ending"]
    cases = sorted(path.name.removesuffix(ending) for path in (source / "labelsTr").iterdir())
    training, test = cases[:num_cases], cases[num_cases : num_cases + NUM_TEST_CASES]
    for part, names in (("imagesTr", training), ("imagesTs", test)):
        (target / part).mkdir(parents=True)
        for image in (image for name in names for image in (source / "imagesTr").glob(f"{name}_????{ending}")):
            shutil.copyfile(image, target / part / image.name)
    (target / "labelsTr").mkdir()
    for name in training:
        shutil.copyfile(source / "labelsTr" / f"{name}{ending}", target / "labelsTr" / f"{name}{ending}")
    (target / "dataset.json").write_text(json.dumps({**description, "numTraining": len(training)}))


def add_small_configurations(plans_file: Path) -> None:
    """Adds small networks as configurations that inherit everything else, by editing the plans as users do."""
    plans = json.loads(plans_file.read_text())
    for name, (parent, patch_size, batch_size, features) in SMALL.items():
        architecture = json.loads(json.dumps(plans["configurations"][parent]["architecture"]))
        stages, axes = len(features), len(patch_size)
        architecture["arch_kwargs"] |= {
            "n_stages": stages,
            "features_per_stage": features,
            "kernel_sizes": [[3] * axes] * stages,
            "strides": [[1] * axes] + [[2] * axes] * (stages - 1),
            "n_conv_per_stage": [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
        }
        own: dict[str, Any] = {"patch_size": patch_size, "batch_size": batch_size, "architecture": architecture}
        plans["configurations"][name] = {"inherits_from": parent, **own}
    plans_file.write_text(json.dumps(plans, indent=4))


def train(experiment: Experiment, iterations: int) -> None:
    trainers = experiment.folder / "trainers"
    trainers.mkdir()
    (trainers / "short_trainer.py").write_text(TRAINER_SOURCE.format(iterations=iterations))
    for configuration in SMALL:
        for fold in FOLDS:
            words = (experiment.number, configuration, fold, "-tr", TRAINER, "--npz", "-device", "cpu")
            experiment.run(("nnUNetv2_train", *words))


def follow_instructions(experiment: Experiment, results: str, output: Path) -> Path:
    """Runs the commands of inference_instructions.txt; returns the folder of the postprocessed segmentations.

    Paths below one `nnUNet_results` are mapped to another.
    """
    original, installed = (experiment.folder / name for name in ("results", results))
    text = (original / experiment.dataset / "inference_instructions.txt").read_text()
    text = text.replace(str(original), str(installed))
    images = experiment.folder / "raw" / experiment.dataset / "imagesTs"
    for line in (line for line in text.splitlines() if line.startswith("nnUNetv2_")):
        words = [_folder_for(word, images, output) for word in line.split()]
        on_cpu = ("-device", "cpu") if words[0] == "nnUNetv2_predict" else ()
        experiment.run((*words, *on_cpu), results)
    return output / "OUTPUT_FOLDER_PP"


def _folder_for(word: str, images: Path, output: Path) -> str:
    if word == "INPUT_FOLDER":
        return str(images)
    return str(output / word) if word.startswith("OUTPUT_FOLDER") else word


def predict_ensemble(experiment: Experiment, output: Path) -> None:
    """Predicts with the ensemble of both models, even if a single model is the best configuration."""
    images = experiment.folder / "raw" / experiment.dataset / "imagesTs"
    common = ("-d", experiment.number, "-i", str(images), "-tr", TRAINER, "-f", *FOLDS, "--save_probabilities")
    members = [str(output / configuration) for configuration in SMALL]
    for configuration, member in zip(SMALL, members, strict=True):
        experiment.run(("nnUNetv2_predict", *common, "-c", configuration, "-o", member, "-device", "cpu"))
    experiment.run(("nnUNetv2_ensemble", "-i", *members, "-o", str(output / "ensemble"), "--save_npz", "-np", "1"))


def share(experiment: Experiment) -> None:
    archive = str(experiment.folder / "model.zip")
    chosen = ("-c", *SMALL, "-tr", TRAINER, "-p", PLANS, "-f", *FOLDS)
    # with the cross-validation, because the instructions name the plans that lie there
    export = ("nnUNetv2_export_model_to_zip", "-d", experiment.number, "-o", archive, *chosen, "--exp_cv_preds")
    experiment.run(export)
    (experiment.folder / "installed").mkdir()
    experiment.run(("nnUNetv2_install_pretrained_model_from_zip", archive), "installed")


def require_equal_voxels(first: Path, second: Path, file_ending: str) -> None:
    names = sorted(path.name for path in first.glob(f"*{file_ending}"))
    if len(names) != NUM_TEST_CASES or names != sorted(path.name for path in second.glob(f"*{file_ending}")):
        sys.exit(f"{first} and {second} hold other cases; expected {NUM_TEST_CASES}, found {names}")
    for name in names:
        before, after = (np.asarray(nibabel.load(folder / name).dataobj) for folder in (first, second))
        if not np.array_equal(before, after):
            sys.exit(f"{name}: {np.sum(before != after)} voxels differ after export and installation")
    print(f"{len(names)} predictions have the same voxels after export and installation")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", type=Path, help="bin folder of the environment to drive")
    parser.add_argument("dataset", type=Path, help="raw dataset, DatasetXXX_Name, with .nii.gz files")
    parser.add_argument("folder", type=Path, help="where everything is written; must not exist")
    parser.add_argument("--cases", type=int, default=20, help="training cases; default: %(default)s")
    parser.add_argument("--iterations", type=int, default=60, help="per epoch, of 2 epochs; default: %(default)s")
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True)
    experiment = Experiment(args.commands.absolute(), args.folder.resolve(), args.dataset.name)
    for root in ("raw", "preprocessed", "results"):
        (experiment.folder / root).mkdir()
    (experiment.folder / "one_core").mkdir()
    (experiment.folder / "one_core" / "sitecustomize.py").write_text(ONE_CORE_SOURCE)
    copy_dataset(args.dataset, experiment, args.cases)

    # upstream's planner cannot work with nnUNet_n_proc_DA=0
    plan = ("nnUNetv2_plan_and_preprocess", "-d", experiment.number, "-c", "2d", "3d_fullres", "-npfp", "1", "-np", "1")
    experiment.run((*plan, "--verify_dataset_integrity"), nnUNet_n_proc_DA="1")
    add_small_configurations(experiment.folder / "preprocessed" / experiment.dataset / f"{PLANS}.json")
    train(experiment, args.iterations)
    chosen = ("-c", *SMALL, "-tr", TRAINER)
    experiment.run(("nnUNetv2_find_best_configuration", experiment.number, *chosen, "-np", "1"))
    predicted = follow_instructions(experiment, "results", experiment.folder / "predictions")
    predict_ensemble(experiment, experiment.folder / "predictions_of_both")
    share(experiment)
    again = follow_instructions(experiment, "installed", experiment.folder / "predictions_installed")
    require_equal_voxels(predicted, again, ".nii.gz")
    print(f"{_cpu_seconds():.0f} CPU s in all")


if __name__ == "__main__":
    main()
