"""Logging of a run: metrics.jsonl, the progress line, trackers and the profiler."""
