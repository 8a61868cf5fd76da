"""What a cache of a frozen backbone's features would gain per step, and what it would cost in Dice.

    python benchmarks/frozen_features.py DATASET [key=value ...] --weights FILE [--steps 400] [--head segformer]
        [--configuration 2d] [--backbone dinov2] [--backbone_size small] [--output FOLDER]

Features can be kept only for views that come back: images without scaling, rotation, blur, noise or changes of
contrast. Three trainings with `model.tuning=frozen` show what that is worth: nnU-Net's augmentation; only crops and
mirroring, which is the most that a cache allows, for as many steps; and the same for as many steps as fit into the time
of the first if no step ran the backbone. Then one step is timed with and without the backbone. Finished trainings are
skipped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from heads import HEADS, backbone_settings
from short_trainings import FOLD, PLANS, STEPS_PER_EPOCH, Training, head_training, summary_of, train
from step_times import medians

from dinov3.utils.atomic_files import read_json
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

MIRRORED = "nnUNetTrainer_vit_mirrored_crops"
_MIRRORED_SOURCE = f'''"""Crops and mirroring instead of nnU-Net's augmentation."""

from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer_vit import nnUNetTrainer_vit


class {MIRRORED}(nnUNetTrainer_vit):
    @staticmethod
    def get_training_transforms(
        patch_size, rotation_for_DA, deep_supervision_scales, mirror_axes, do_dummy_2d_data_aug,
        use_mask_for_norm=None, is_cascaded=False, foreground_labels=None, regions=None, ignore_label=None,
    ):
        rest = nnUNetTrainer.get_validation_transforms(
            deep_supervision_scales, is_cascaded, foreground_labels, regions, ignore_label
        )
        return ComposeTransforms([MirrorTransform(allowed_axes=mirror_axes), rest])

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        rotation, dummy_2d, _, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return rotation, dummy_2d, self.configuration_manager.patch_size, mirror_axes
'''


def step_times(training: Training, device: torch.device, repeats: int) -> tuple[float, float]:
    """Measures seconds per training step on one batch: with the backbone, and with its features given."""
    arguments = (training.trainer, PLANS, False, device, training.arguments)
    trainer = get_trainer_from_args(*training.command[1:4], *arguments)
    trainer.disable_checkpointing = True
    trainer.initialize()
    trainer.network.train()
    batch = next(trainer.get_dataloaders()[0])
    with torch.no_grad():
        kept = trainer.network.features(trainer.network.adapted(batch["data"].to(device)))

    def without_backbone() -> None:
        with mock.patch.object(trainer.network, "features", lambda image: kept):
            trainer.train_step(batch)

    times = medians({"all": lambda: trainer.train_step(batch), "head": without_backbone}, device, repeats)
    return times["all"]["ms"] / 1000, times["head"]["ms"] / 1000


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="name or id of a preprocessed dataset")
    parser.add_argument("--weights", type=Path, required=True, help="file of backbone weights")
    parser.add_argument("--head", default="segformer", choices=HEADS)
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--backbone", default="dinov2")
    parser.add_argument("--backbone_size", default="small")
    parser.add_argument("--steps", type=int, default=400, help=f"training steps, a multiple of {STEPS_PER_EPOCH}")
    parser.add_argument("--output", type=Path, default=Path("frozen_features_output"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="rounds in which steps are timed")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="further settings")
    args = parser.parse_intermixed_args(argv)
    args.output, args.weights = args.output.resolve(), args.weights.resolve()

    folder = args.output / "trainers"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{MIRRORED}.py").write_text(_MIRRORED_SOURCE)
    os.environ["nnUNet_extTrainer"] = str(folder)
    os.environ.setdefault("nnUNet_n_proc_DA", "0")

    settings = [f"model.head={args.head}", "model.tuning=frozen", *backbone_settings(args), *args.settings]
    common = (args.dataset, args.configuration, FOLD, "-device", args.device)
    dataset = maybe_convert_to_dataset_name(args.dataset)
    augmented = head_training(settings, common, args.steps, args.output / "augmented")
    with_backbone, without = step_times(augmented, torch.device(args.device), args.repeats)
    more = round(args.steps * with_backbone / without / STEPS_PER_EPOCH) * STEPS_PER_EPOCH
    rows = {f"nnU-Net's augmentation, {args.steps} steps": augmented}
    for steps in (args.steps, more):
        mirrored = head_training(settings, (*common, "-tr", MIRRORED), steps, args.output / f"mirrored_{steps}")
        rows[f"crops and mirroring, {steps} steps"] = replace(mirrored, trainer=MIRRORED)
    lines = ["| training | Dice | Dice of each class |", "|---|---|---|"]
    for name, training in rows.items():
        train(training, dataset)
        summary = read_json(summary_of(training, dataset))
        classes = " / ".join(f"{scores['Dice']:.3f}" for scores in summary["mean"].values())
        lines.append(f"| {name} | {summary['foreground_mean']['Dice']:.3f} | {classes} |")
    print("\n".join(lines))
    print(f"\nSeconds per step: {with_backbone:.2f}; with the backbone's features given: {without:.2f}")


if __name__ == "__main__":
    main()
