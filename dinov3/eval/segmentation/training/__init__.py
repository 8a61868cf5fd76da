"""Training of a segmentation model: set-up, loop, state, files and log."""
