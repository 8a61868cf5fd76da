"""A training from set-up to saved model: the loop, its state, its files and its log."""
