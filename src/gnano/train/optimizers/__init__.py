"""From gradients to weights: AdamW, Muon, how large a step is, and fp16's loss scale."""
