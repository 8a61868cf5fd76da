"""Parts shared by the adapter and the heads."""
