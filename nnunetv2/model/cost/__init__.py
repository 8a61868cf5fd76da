"""What a network costs: parameters, operations and memory, counted without data."""
