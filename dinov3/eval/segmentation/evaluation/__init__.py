"""Output of an evaluation: tables of metrics and pictures."""
