"""Trains ViT + UperNet: python nnUNetv2_train_nodeepsupervision_mymodel.py DATASET 2d FOLD --vit_config my.yaml"""

import sys

from nnunetv2.run.run_training_nodeepsupervision_mymodel import run_training_entry

if __name__ == "__main__":
    sys.exit(run_training_entry())
