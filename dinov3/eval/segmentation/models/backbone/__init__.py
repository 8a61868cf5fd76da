"""Feature pyramids from a plain vision transformer."""
