"""What is told of a step, and to whom: the log, the live line, trackers, a profiler."""
