"""State of a training on disk: checkpoints, model files and earlier results."""
