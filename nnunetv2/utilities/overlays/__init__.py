"""Pictures of training cases under the colours of their labels."""
