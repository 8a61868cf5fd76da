"""nnU-Net v2 with vision foundation models, trained in the same pipeline."""
