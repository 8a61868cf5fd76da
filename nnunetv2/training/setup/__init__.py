"""Before the first epoch: arguments, seed, length, device, processes."""
