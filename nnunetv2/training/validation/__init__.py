"""Validation: of patches during the training, of whole cases after it."""
