"""Trains ViT + SegFormer: python nnUNetv2_train_segformer.py DATASET 2d FOLD --segformer_config my.yaml"""

import sys

from nnunetv2.run.run_training_segformer import run_training_entry

if __name__ == "__main__":
    sys.exit(run_training_entry())
