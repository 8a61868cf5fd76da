"""Downstream tasks on top of the vision transformers."""
