"""auto-g-nano: from raw text to a language model that you trained yourself."""

__version__ = "0.1.0"
