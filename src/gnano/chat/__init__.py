"""Chat with a checkpoint, at a terminal or through a pipe."""
