"""The training command of a vision transformer with any head: nnU-Net's, with settings and `model.head=NAME`."""

import sys

from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.run.vit_command import ViTCommand
from nnunetv2.utilities.command_line import command

__all__ = ["build_parser", "get_trainer_from_args", "maybe_load_checkpoint", "run_training", "run_training_entry"]

COMMAND = ViTCommand(
    program="nnUNetv2_train_vit",
    model="a vision transformer with the head of your choice",
    default_trainer="nnUNetTrainer_vit",
    prefix="",
    settings="nnunetv2.training.nnUNetTrainer.any_head_config.AnyHeadConfig",
    lists_heads=True,
)
build_parser = COMMAND.build_parser
get_trainer_from_args = COMMAND.get_trainer_from_args
run_training = COMMAND.run_training
run_training_entry = command(COMMAND.main)

if __name__ == "__main__":
    sys.exit(run_training_entry())
