"""Tests of nnUNetv2_import_images."""
