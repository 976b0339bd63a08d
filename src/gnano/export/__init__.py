"""Exports a model to other formats, imports it from them, and publishes it with a model card."""
