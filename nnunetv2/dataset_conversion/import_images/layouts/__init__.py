"""Layouts in which pictures and masks are exported, one file each."""
