"""Families of vision transformers, one file each: sizes, sources of the weights, and construction.

A file here, or in a folder that `nnUNet_extensions` names, is all that a family needs: see docs/extending.md.
"""
