"""Training: the trainer, its parts, and the estimates of memory and speed."""
