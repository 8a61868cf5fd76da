"""Trainers built only to measure their cost."""
