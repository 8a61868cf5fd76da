"""The DINOv3 vision transformers."""
