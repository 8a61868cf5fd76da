"""Networks pre-trained without labels as the start of a training."""
