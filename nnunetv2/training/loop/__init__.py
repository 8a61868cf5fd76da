"""The steps of an epoch, and what is reported of them."""
