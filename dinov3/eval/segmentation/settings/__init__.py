"""All settings of a run as dataclasses, their defaults and their checks; nothing heavy is imported here."""
