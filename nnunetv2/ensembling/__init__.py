"""Averages of several models' predictions."""
