"""Planners: rules that derive plans from a fingerprint (patch size, topology, batch size, target spacing)."""
