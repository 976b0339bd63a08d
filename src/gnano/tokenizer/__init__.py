"""The tokenizer room: text <-> ids, one interface and two makers.

`gpt2()` is GPT-2's vocabulary, `train_bpe()` learns one from your own corpus; both give a
`Tokenizer`. The libraries behind them load when a maker or the class is first asked for.
"""

from typing import TYPE_CHECKING

from gnano.lazy import lazily

# not lazily: loading a module called gpt2 later would put it in the function's place
from gnano.tokenizer.gpt2 import gpt2

if TYPE_CHECKING:
    from gnano.tokenizer.bpe import Tokenizer
    from gnano.tokenizer.train import train_bpe

__all__ = ["Tokenizer", "gpt2", "train_bpe"]

__getattr__ = lazily(__name__, {"Tokenizer": "bpe", "train_bpe": "train"})
