"""Arguments of the sliding-window functions whose results `make_inference.py` records."""

STEPS = [((110,), (64,), 0.5), ((110, 64, 65), (64, 64, 64), 0.5), ((300, 77), (128, 30), 0.3), ((48,), (16,), 1.0)]
GAUSSIANS = [(8,), (5, 7), (6, 8, 4), (32,)]
