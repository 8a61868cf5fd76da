"""DINOv3 vision transformers and their segmentation heads."""
