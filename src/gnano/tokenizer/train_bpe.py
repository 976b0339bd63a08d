"""Trains a byte-level BPE vocabulary on a corpus.

Training starts from the 256 bytes and repeatedly merges the most frequent pair of adjacent tokens
into a new one, until the vocabulary is full:

    256 bytes | merges, in the order they were learned | <|endoftext|>

Words are split by GPT-2's regex, and no token crosses a word boundary. A word longer than
`MAX_WORD_CHARS`, such as a genome or a line of spaces, is split, since training time grows with the
square of a word's length. Ties go to the pair with the smaller ids, so the same texts always give
the same vocabulary.
Sennrich et al. 2016, https://arxiv.org/abs/1508.07909.
"""

import json
import threading
from collections.abc import Iterable, Iterator

from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from gnano.tokenizer.bpe import END_OF_TEXT, Tokenizer, replace_surrogates
from gnano.utils.stop_request import TOKENIZER_THREAD_NAME

MIN_VOCAB_SIZE = 257  # the bytes and end-of-text
MAX_VOCAB_SIZE = 65_535  # token shards store ids in 16 bits
MAX_WORD_CHARS = 1_000
WORD_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}{1,N}| ?\p{N}{1,N}| ?[^\s\p{L}\p{N}]{1,N}"
    r"|\s{1,N}(?!\S)|\s{1,N}"
).replace(",N}", f",{MAX_WORD_CHARS}}}")


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a vocabulary of exactly `vocab_size` ids, of which end-of-text is the last.

    `texts` are read once and not kept; a pair must occur twice to become a token. Raises
    ValueError if `vocab_size` is out of bounds or the corpus is too small for it.
    """
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size is {vocab_size:,}; it must be from {MIN_VOCAB_SIZE} (256 bytes and "
            f"{END_OF_TEXT}) to {MAX_VOCAB_SIZE:,} (ids are stored in 16 bits)."
        )
    if isinstance(texts, str):
        raise ValueError("texts is one string. Pass a list of texts, or [text] for a single one.")
    characters = 0

    def count_characters() -> Iterator[str]:
        nonlocal characters
        for text in texts:
            characters += len(text)
            yield replace_surrogates(text)

    backend = Backend(models.BPE())
    words = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    errors: list[BaseException] = []

    def train() -> None:
        try:
            backend.train_from_iterator(count_characters(), trainer)
        except BaseException as error:
            errors.append(error)

    # in a thread, since Ctrl-C does not interrupt native code
    thread = threading.Thread(target=train, daemon=True, name=TOKENIZER_THREAD_NAME)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    if not characters:
        raise ValueError("The corpus to train the tokenizer on is empty. Give it some text.")
    model = json.loads(backend.to_str())["model"]
    size = len(model["vocab"]) + 1
    if size < vocab_size:
        raise ValueError(
            f"The corpus of {characters:,} characters gave only {size:,} of {vocab_size:,} "
            f"vocabulary entries. Train on more text or use a vocab_size of {size} or less."
        )
    merges = [(left, right) for left, right in model["merges"]]
    return Tokenizer(model["vocab"] | {END_OF_TEXT: size - 1}, merges)
