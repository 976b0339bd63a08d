"""Checkpoints: their format, checksums, background writing, retention, and export of weights."""
