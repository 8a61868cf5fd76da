"""Cost of a network: parameters, operations and memory, counted without data."""
