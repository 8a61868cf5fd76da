"""Fair comparison of trained models: which one is better, by how much, with what certainty, and at what cost."""
