"""The chat room: a conversation with a checkpoint, at a terminal or through a pipe."""
