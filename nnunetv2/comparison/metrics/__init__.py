"""One file per metric: computation, unit, direction, definition and empty-mask rule.

A new metric needs only a file here or in a folder listed in `nnUNet_extensions`: see docs/extending.md.
"""
