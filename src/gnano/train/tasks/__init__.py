"""The training tasks: pretraining, supervised fine-tuning (SFT), preference tuning (DPO)."""
