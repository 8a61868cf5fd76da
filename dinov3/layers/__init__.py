"""Building blocks shared by the vision transformers and the segmentation heads."""
