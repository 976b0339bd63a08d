"""How likely was a token to the model itself, and what had it rather said?

Of the model's own logits, before temperature, penalties and limits: these say how a token is
drawn, and not what the model believes.
"""

from dataclasses import dataclass

from torch import Tensor

from gnano.infer.limits import likeliest
from gnano.utils.ranges import Range, check_number


@dataclass(frozen=True)
class LogProb:
    token: int
    logprob: float  # natural logarithm of its probability, 0 at most
    top: tuple[tuple[int, float], ...] = ()  # the likeliest and theirs, likeliest first


def log_probabilities(logits_V: Tensor, token: int, top: int = 0) -> LogProb:
    """Of a token and, beside it, of the `top` likeliest (it may be among them)."""
    check_number("top", top, Range(0))
    log_V = logits_V.float().log_softmax(-1)
    if not top:
        return LogProb(token, float(log_V[token]))
    ids = likeliest(log_V, min(top, len(log_V)))
    values = log_V[ids].tolist()
    return LogProb(token, float(log_V[token]), tuple(zip(ids.tolist(), values, strict=True)))
