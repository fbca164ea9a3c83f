"""Grade a course in which students build a language model from stubs."""

__version__ = "2026.1.0"
