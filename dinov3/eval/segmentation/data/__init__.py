"""Images and label maps: discovery, reading, resizing, augmentation and batching."""
