"""Planners for U-Nets with a residual encoder."""
