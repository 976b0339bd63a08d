"""A PyTorch file with the published checkpoint's names, for the published model's class."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from gnano.export.hugging_face import SHAPE, shape_text
from gnano.export.source import Source
from gnano.model import to_published


def export_pt(source: Source, path: Path, dtype: torch.dtype) -> None:
    """Write the state dict in this dtype, with RoPE on neighbouring channels.

    `torch.load(path, weights_only=True)` gives what `GPT(…).load_state_dict` takes. The shape lies
    in the state dict's metadata, where PyTorch keeps what is no tensor.
    """
    state: Any = OrderedDict()
    state._metadata = {SHAPE: shape_text(source)}
    for name, tensor in source.tensors.items():
        theirs, turned = to_published(name, tensor, source.config)
        state[theirs] = turned.to(dtype)
    try:
        torch.save(state, path)
    except RuntimeError as error:  # of its C++, which keeps the system's reason to itself
        raise OSError(str(error).splitlines()[0]) from None
