"""Rules that turn a fingerprint into plans: patch size, topology, batch size, target spacing."""
