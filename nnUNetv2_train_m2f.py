"""Trains DINOv3 + Mask2Former: python nnUNetv2_train_m2f.py DATASET 2d FOLD --m2f_config my.yaml lora.r=16"""

import sys

from nnunetv2.run.run_training_m2f import run_training_entry

if __name__ == "__main__":
    sys.exit(run_training_entry())
