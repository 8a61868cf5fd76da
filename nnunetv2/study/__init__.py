"""A study: models, folds and seeds that are trained, scored and compared by one command."""
