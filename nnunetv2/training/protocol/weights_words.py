"""What the metrics call weights that come from no file."""

NO_WEIGHTS = "none given"
RANDOM_WEIGHTS = "random weights"
