"""One file per family of vision transformers: its sizes, where weights of each are, and how one is built.

A file here, or in a folder that `nnUNet_extensions` names, is all that a family needs: see docs/extending.md.
"""
