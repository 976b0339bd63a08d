"""How does a run survive? Checkpoints: what they are, how they are written, which of them stay."""
