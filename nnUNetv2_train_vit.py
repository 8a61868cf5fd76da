"""Trains a vision transformer with any head: python nnUNetv2_train_vit.py DATASET 2d FOLD model.head=dpt"""

import sys

from nnunetv2.run.run_training_vit import run_training_entry

if __name__ == "__main__":
    sys.exit(run_training_entry())
