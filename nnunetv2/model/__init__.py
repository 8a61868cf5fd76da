"""Networks on vision transformers, in addition to nnU-Net's own U-Nets.

Legend of shapes in this package: B batch, C channels, K classes or regions (outputs), Q queries, N tokens,
D embedding dimension, H and W rows and columns in 2-D, X Y Z spatial axes in nnU-Net's order.
"""
