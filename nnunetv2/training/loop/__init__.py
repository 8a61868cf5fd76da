"""A fold in training, the steps of an epoch, and what is reported of them."""
