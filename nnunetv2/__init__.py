"""nnU-Net v2, and vision foundation models trained in the same pipeline."""
