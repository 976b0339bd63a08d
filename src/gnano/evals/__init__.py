"""Evaluation of models: tasks, bits per byte, comparison, contamination and smoke tests."""
