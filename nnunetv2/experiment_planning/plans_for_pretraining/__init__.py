"""Transfer of plans between datasets, for pretraining and fine-tuning."""
