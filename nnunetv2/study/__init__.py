"""A study: train, score and compare models over folds and seeds with one command."""
