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
from gnano.model.lora_config import LoraConfig

if TYPE_CHECKING:
    from gnano.model.adapter import load_adapter, save_adapter
    from gnano.model.attention import Branches
    from gnano.model.cache import KVCache
    from gnano.model.folder import (
        load_model,
        read_config,
        read_tensors,
        read_weights,
        save_model,
        save_tensors,
        write_config,
    )
    from gnano.model.gpt import GPT
    from gnano.model.head_loss import IGNORE
    from gnano.model.lora import add_lora, merged
    from gnano.model.names import from_published, half_split, interleaved, to_published

__all__ = [
    "GPT",
    "GPUS",
    "IGNORE",
    "PRESETS",
    "Branches",
    "Gpu",
    "KVCache",
    "LoraConfig",
    "ModelConfig",
    "active_parameters",
    "add_lora",
    "find_gpu",
    "flops_per_token",
    "from_published",
    "half_split",
    "interleaved",
    "kv_cache_bytes_per_token",
    "load_adapter",
    "load_model",
    "merged",
    "mfu",
    "num_parameters",
    "parameters",
    "peak_flops",
    "read_config",
    "read_tensors",
    "read_weights",
    "recognise",
    "save_adapter",
    "save_model",
    "save_tensors",
    "to_published",
    "write_config",
]

__getattr__ = lazily(
    __name__,
    {
        "GPT": "gpt",
        "IGNORE": "head_loss",
        "Branches": "attention",
        "KVCache": "cache",
        "add_lora": "lora",
        "from_published": "names",
        "half_split": "names",
        "interleaved": "names",
        "load_adapter": "adapter",
        "load_model": "folder",
        "merged": "lora",
        "read_config": "folder",
        "read_tensors": "folder",
        "read_weights": "folder",
        "save_adapter": "adapter",
        "save_model": "folder",
        "save_tensors": "folder",
        "to_published": "names",
        "write_config": "folder",
    },
)
