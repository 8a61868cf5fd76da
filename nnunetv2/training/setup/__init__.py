"""Preparation before the first epoch: arguments, seed, length, device, processes."""
