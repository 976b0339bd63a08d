"""What devices lack: Apple's GPUs (`mps`) have no fp64, and their fused AdamW scales nothing."""

import torch

WITHOUT_FP64 = frozenset({"mps"})
WITHOUT_SCALED_ADAMW = frozenset({"mps"})  # the kernel ignores `grad_scale` and `found_inf`


def widest_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which sums over many values are kept on a device."""
    return torch.float32 if device.type in WITHOUT_FP64 else torch.float64
