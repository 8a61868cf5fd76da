"""Loading of pretrained weights into a backbone: source, format, and report of what was loaded."""
