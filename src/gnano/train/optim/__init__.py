"""Optimizers: AdamW, Muon, and dynamic loss scaling for fp16."""
