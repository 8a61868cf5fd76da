"""Pictures of training cases with their labels as coloured overlay."""
