"""The tokenizer room: text <-> ids, one interface and two makers.

`gpt2()` is GPT-2's vocabulary, `train_bpe()` learns one from your own corpus; both give a
`Tokenizer`. The libraries behind them load when a maker or the class is first asked for.
"""
