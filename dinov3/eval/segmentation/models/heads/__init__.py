"""Segmentation heads that turn feature maps into predictions."""
