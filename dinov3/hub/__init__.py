"""Released models: how each size is built, where its weights are, and how weights in any form get into it."""
