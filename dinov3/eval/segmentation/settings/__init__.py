"""All settings of a run as dataclasses, with defaults and checks; imports nothing heavy."""
