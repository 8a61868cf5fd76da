"""One file per metric: how it is computed, its unit, direction, definition, and rule for empty masks.

A file here, or in a folder that `nnUNet_extensions` names, is all that a metric needs: see docs/extending.md.
"""
