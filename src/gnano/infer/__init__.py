"""The infer room: a checkpoint that continues text."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.infer.engine import Engine
    from gnano.infer.sampling import Sampling, choose, probabilities
    from gnano.infer.text_stream import TextStream

__all__ = ["Engine", "Sampling", "TextStream", "choose", "probabilities"]

__getattr__ = lazily(
    __name__,
    {
        "Engine": "engine",
        "Sampling": "sampling",
        "TextStream": "text_stream",
        "choose": "sampling",
        "probabilities": "sampling",
    },
)
