"""Trainers that are made to be measured, not to train."""
