"""The infer room: a checkpoint that continues text."""
