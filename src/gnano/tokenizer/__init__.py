"""Tokenizers: byte-level BPE, GPT-2's vocabulary or one trained on your own corpus."""
