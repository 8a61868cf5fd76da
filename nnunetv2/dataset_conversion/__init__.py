"""Convert datasets of other layouts to raw datasets of nnU-Net."""
