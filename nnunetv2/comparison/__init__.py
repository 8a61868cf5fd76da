"""The fair comparison of trained models: which one is better, by how much, how surely, at what cost."""
