"""DINOv3 vision transformers and the segmentation heads that go with them."""
