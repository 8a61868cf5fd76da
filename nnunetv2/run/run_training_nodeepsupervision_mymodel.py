"""The training command of ViT + UperNet: nnU-Net's, with a settings file and `key=value` words."""

import sys

from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.run.vit_command import ViTCommand
from nnunetv2.utilities.command_line import command

__all__ = ["build_parser", "get_trainer_from_args", "maybe_load_checkpoint", "run_training", "run_training_entry"]

COMMAND = ViTCommand(
    program="nnUNetv2_train_nodeepsupervision_mymodel",
    model="a vision transformer + UperNet",
    default_trainer="nnUNetTrainerNoDeepSupervision_mymodel",
    prefix="vit_",
    settings="nnunetv2.training.nnUNetTrainer.mymodel_config.MyModelnnUNetConfig",
)
build_parser = COMMAND.build_parser
get_trainer_from_args = COMMAND.get_trainer_from_args
run_training = COMMAND.run_training
run_training_entry = command(COMMAND.main)

if __name__ == "__main__":
    sys.exit(run_training_entry())
