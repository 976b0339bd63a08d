"""A model that says what a test wants."""

import torch

from gnano.model.transformer import GPT
from gnano.tokenizer.bpe import Tokenizer


def teach(model: GPT, tokenizer: Tokenizer, text: str, endless: bool = False) -> None:
    """Give the model weights that say this, whatever was asked, and end, or begin it again.

    Without layers' changes the next token depends on the last one alone, and a text in which no
    token comes twice is a table of them.
    """
    ids = tokenizer.encode(text)
    last = ids[0] if endless else tokenizer.end_of_text_id
    start = tokenizer.encode("\n")[0]  # what each prompt ends with
    following = dict(zip([start, *ids], [*ids, last], strict=True))
    assert len(following) == len(ids) + 1, "a token comes twice"
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1)
        torch.manual_seed(0)
        shape = model.model.embed_tokens.weight.shape
        codes = torch.nn.functional.normalize(torch.randn(shape))
        model.model.embed_tokens.weight.copy_(codes)
        model.lm_head.weight.zero_()
        for token, after in following.items():
            model.lm_head.weight[after] += codes[token]
