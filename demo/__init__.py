"""The demonstration: a real microscopy recording, from the package index to a scored Mask2Former prediction."""
