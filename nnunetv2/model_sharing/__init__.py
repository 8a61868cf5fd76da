"""Trained models as zip files: export, install, download."""
