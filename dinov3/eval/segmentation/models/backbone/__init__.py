"""Feature pyramids made from a plain vision transformer."""
