"""Where do small, clean texts come from without a download? We write them, by the million.

A quarter of the demo corpus is made here: little stories and textbook passages in simple,
correct English, from hand-written scripts, tables and a seeded die. The facts are true, the
arithmetic is computed, and a model of a few million parameters can learn to speak like this.
Stories about tiny worlds as a school for tiny models: Eldan & Li 2023, arXiv:2305.07759.

    (seed, k) ──die──▶ story | lesson | sums ──▶ passage
                         │       │        │
                      plots    facts   equations      all told by the same small grammar
"""

import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

from gnano.data.synthetic import lessons, nature
from gnano.data.synthetic.stories import story
from gnano.data.synthetic.sums import sums

SHORTEST, LONGEST = 400, 1_500  # characters of a passage

# how often each form is drawn: the more a form has to say, the more often
FORMS: list[tuple[Callable[[Random], str], int]] = [
    (story, 50),
    (sums, 17),
    (lessons.why, 5),
    (lessons.quiz, 5),
    (lessons.subjects, 5),
    (nature.compare_animals, 4),
    (lessons.how_to, 3),
    (lessons.vocabulary, 3),
    (nature.animal, 2),
    (nature.experiment, 2),
    (nature.odd_one_out, 2),
    (lessons.countries, 1),
    (nature.compare_planets, 1),
]
_DECK = [form for form, cards in FORMS for _ in range(cards)]


def passage(seed: int, k: int) -> str:
    """The k-th passage of this seed; it depends on nothing else."""
    # a string seeds through SHA-512: neighbours in k share nothing, in any process
    dice = Random(f"gnano synthetic {seed} {k}")
    while True:
        text = dice.choice(_DECK)(dice)
        if SHORTEST <= len(text) <= LONGEST:
            return text


def passages(seed: int) -> Iterator[str]:
    """Endless documents, no two alike; passage k depends on (seed, k) alone."""
    return (passage(seed, k) for k in count())


def identity() -> str:
    """Stands for all passages: a hash of the modules that write them."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    sources = "".join(f"{path.name}\0{path.read_text('utf-8')}\0" for path in modules)
    return hashlib.blake2b(sources.encode(), digest_size=16).hexdigest()


__all__ = ["identity", "passage", "passages"]
