"""From a raw dataset to plans: integrity check, fingerprint, planners."""
