"""Ensembles: averaged predictions of several models."""
