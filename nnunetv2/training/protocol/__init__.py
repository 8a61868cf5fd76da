"""Description that a training records of itself, so that it can be compared with others."""
