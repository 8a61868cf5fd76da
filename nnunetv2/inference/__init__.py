"""From images to segmentations with a trained model."""
