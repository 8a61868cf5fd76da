"""Dataset fingerprint, the input of planning: spacings, shapes, foreground intensities."""
