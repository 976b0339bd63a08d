"""Configuration: frozen dataclasses that need no torch, and the recipes of the package."""
