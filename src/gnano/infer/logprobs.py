"""How likely was a token to the model itself, and what had it rather said?

Of the model's own logits, before temperature, penalties and limits: these say how a token is
drawn, and not what the model believes.
"""

from dataclasses import dataclass

from torch import Tensor

from gnano.infer.limits import top_token_ids
from gnano.utils.ranges import Range, check_number


@dataclass(frozen=True)
class TokenLogprob:
    token_id: int
    logprob: float  # natural logarithm of its probability, 0 at most
    top_logprobs: tuple[tuple[int, float], ...] = ()  # the likeliest and theirs, likeliest first


def compute_logprob(logits_V: Tensor, token_id: int, num_top: int = 0) -> TokenLogprob:
    """Of a token and, beside it, of the `top` likeliest (it may be among them)."""
    check_number("top", num_top, Range(0))
    log_V = logits_V.float().log_softmax(-1)
    if not num_top:
        return TokenLogprob(token_id, float(log_V[token_id]))
    ids = top_token_ids(log_V, min(num_top, len(log_V)))
    values = log_V[ids].tolist()
    return TokenLogprob(
        token_id, float(log_V[token_id]), tuple(zip(ids.tolist(), values, strict=True))
    )
