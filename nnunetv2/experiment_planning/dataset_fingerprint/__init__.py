"""What planning needs to know of a dataset: spacings, shapes, intensities of the foreground."""
