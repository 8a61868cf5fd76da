"""Plans of one dataset for another, which pretraining and fine-tuning need."""
