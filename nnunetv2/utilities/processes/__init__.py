"""Several processes for nnU-Net's commands and cases."""
