"""A model that generates a given text."""

import torch

from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer


def teach(model: GPT, tokenizer: Tokenizer, text: str, endless: bool = False) -> None:
    """Set weights that generate `text` for any prompt, then end or (`endless`) repeat the text.

    With all weights of the layers zero, the next token depends only on the last one. So no token
    may occur twice in the text.
    """
    ids = tokenizer.encode(text)
    after_last = ids[0] if endless else tokenizer.end_of_text_id
    start = tokenizer.encode("\n")[0]  # the last token of each prompt
    next_tokens = dict(zip([start, *ids], [*ids, after_last], strict=True))
    assert len(next_tokens) == len(ids) + 1, "a token occurs twice"
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1)
        torch.manual_seed(0)
        shape = model.model.embed_tokens.weight.shape
        embeddings = torch.nn.functional.normalize(torch.randn(shape))
        model.model.embed_tokens.weight.copy_(embeddings)
        model.lm_head.weight.zero_()
        for token, next_token in next_tokens.items():
            model.lm_head.weight[next_token] += embeddings[token]
