"""State of a fold in training, the steps of an epoch, and their reports."""
