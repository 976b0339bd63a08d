"""The model room: the transformer, its shape and its arithmetic.

Shape, arithmetic and the table of GPUs need no torch; the rest loads it when first asked for.
"""

from typing import TYPE_CHECKING

from gnano.lazy import lazily
from gnano.model.arithmetic import (
    active_parameters,
    flops_per_token,
    kv_cache_bytes_per_token,
    num_parameters,
    parameters,
)
from gnano.model.config import PRESETS, ModelConfig
from gnano.model.hardware import GPUS, Gpu, find_gpu, mfu, peak_flops, recognise

if TYPE_CHECKING:
    from gnano.model.cache import KVCache
    from gnano.model.folder import load_model, read_config, read_weights, save_model, save_tensors
    from gnano.model.gpt import GPT
    from gnano.model.head_loss import IGNORE

__all__ = [
    "GPT",
    "GPUS",
    "IGNORE",
    "PRESETS",
    "Gpu",
    "KVCache",
    "ModelConfig",
    "active_parameters",
    "find_gpu",
    "flops_per_token",
    "kv_cache_bytes_per_token",
    "load_model",
    "mfu",
    "num_parameters",
    "parameters",
    "peak_flops",
    "read_config",
    "read_weights",
    "recognise",
    "save_model",
    "save_tensors",
]

__getattr__ = lazily(
    __name__,
    {
        "GPT": "gpt",
        "IGNORE": "head_loss",
        "KVCache": "cache",
        "load_model": "folder",
        "read_config": "folder",
        "read_weights": "folder",
        "save_model": "folder",
        "save_tensors": "folder",
    },
)
