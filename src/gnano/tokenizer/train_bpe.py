"""A vocabulary of your own: byte-level BPE learnt from a corpus.

Training starts from the 256 bytes and, again and again, makes one token of the most
frequent pair of neighbours, until the vocabulary is full:

    256 bytes | merges, in the order they were learnt | <|endoftext|>

Words are split by GPT-2's regex, and no token crosses from one word to the next. A word longer
than `LONGEST` characters, such as a genome or a line of blanks, is learnt from in parts, since
training takes time in the square of a word's length. Ties go to the pair with the smaller ids, so
the same texts always give the same vocabulary.
Sennrich et al. 2016, https://arxiv.org/abs/1508.07909.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator

from tokenizers import Regex, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from gnano.tokenizer.bpe import END_OF_TEXT, Tokenizer, replace_surrogates

MIN_VOCAB_SIZE = 257  # the bytes and end-of-text
MAX_VOCAB_SIZE = 65_535  # token shards keep ids in 16 bits
MAX_WORD_CHARS = 1_000  # characters of a word
WORD_PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}{1,N}| ?\p{N}{1,N}| ?[^\s\p{L}\p{N}]{1,N}"
    r"|\s{1,N}(?!\S)|\s{1,N}"
).replace(",N}", f",{MAX_WORD_CHARS}}}")


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a vocabulary of exactly `vocab_size` ids, end-of-text included and last.

    `texts` are read once and not kept; a pair has to occur twice to become a token. Raises
    ValueError if `vocab_size` is out of bounds or the corpus is too small for it.
    """
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(
            f"vocab_size is {vocab_size:,}; it must be from {MIN_VOCAB_SIZE} (256 bytes and "
            f"{END_OF_TEXT}) to {MAX_VOCAB_SIZE:,} (ids are stored in 16 bits)."
        )
    if isinstance(texts, str):
        raise ValueError("texts is one string; give a list of texts, or [text] for a single one.")
    characters = 0

    def counted() -> Iterator[str]:
        nonlocal characters
        for text in texts:
            characters += len(text)
            yield replace_surrogates(text)

    backend = Backend(models.BPE())
    words = pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        special_tokens=[],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    _run_interruptibly(lambda: backend.train_from_iterator(counted(), trainer))
    if not characters:
        raise ValueError("The corpus to train the tokenizer on is empty; give it some text.")
    learnt = json.loads(backend.to_str())["model"]
    got = len(learnt["vocab"]) + 1
    if got < vocab_size:
        raise ValueError(
            f"The corpus of {characters:,} characters gave only {got:,} of {vocab_size:,} "
            f"vocabulary entries; train on more text or ask for vocab_size {got} or less."
        )
    merges = [(left, right) for left, right in learnt["merges"]]
    return Tokenizer(learnt["vocab"] | {END_OF_TEXT: got - 1}, merges)


def _run_interruptibly(function: Callable[[], object]) -> None:
    """Run native code in a thread, so that Ctrl-C is heard while it runs."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="tokenizer training")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
