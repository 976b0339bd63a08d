"""The infer room: a checkpoint that continues text."""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

if TYPE_CHECKING:
    from gnano.infer.batch import Batch, Request, Row
    from gnano.infer.choosing import choose_each
    from gnano.infer.engine import Completion, Engine
    from gnano.infer.loading import Dtype, Loading, Quant
    from gnano.infer.logprobs import LogProb, log_probabilities
    from gnano.infer.penalties import History
    from gnano.infer.sampling import Sampling
    from gnano.infer.speed import Speed, measure
    from gnano.infer.text_stream import TextStream

__all__ = [
    "Batch",
    "Completion",
    "Dtype",
    "Engine",
    "History",
    "Loading",
    "LogProb",
    "Quant",
    "Request",
    "Row",
    "Sampling",
    "Speed",
    "TextStream",
    "choose_each",
    "log_probabilities",
    "measure",
]

__getattr__ = lazily(
    __name__,
    {
        "Batch": "batch",
        "Completion": "engine",
        "Dtype": "loading",
        "Engine": "engine",
        "History": "penalties",
        "Loading": "loading",
        "LogProb": "logprobs",
        "Quant": "loading",
        "Request": "batch",
        "Row": "batch",
        "Sampling": "sampling",
        "Speed": "speed",
        "TextStream": "text_stream",
        "choose_each": "choosing",
        "log_probabilities": "logprobs",
        "measure": "speed",
    },
)
