"""Planning of a raw dataset: integrity check, fingerprint, planners."""
