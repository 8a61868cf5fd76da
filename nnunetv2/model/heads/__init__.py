"""Segmentation heads, one file each: the network after the backbone, its settings and its name.

A file here, or in a folder that `nnUNet_extensions` names, is all that a head needs: see docs/new_head.md.
"""
