"""Worked arithmetic: a small problem, the way to its answer, and the answer.

counting, measuring ──draw one to three──▶ problems, numbered ──▶ a page
"""

from collections.abc import Callable
from random import Random

from gnano.data.synthetic import counting, measuring
from gnano.data.synthetic.grammar import pool, say

pool(
    "sum_title",
    """
Lesson: [Working With Numbers|Everyday Arithmetic|Sums in Daily Life|Numbers Around Us]
Worked arithmetic [for class {grade}|for beginners|with answers]
[Arithmetic practice|Practice page] {page}
[Mathematics|Arithmetic], step by step
Exercise {page}
""",
)


KINDS: tuple[Callable[[Random], str], ...] = (
    *(counting.shop, counting.many_of_one, counting.collection, counting.sharing),
    *(counting.mean, counting.percent, counting.savings),
    *(measuring.journey, measuring.part, measuring.fractions, measuring.ground),
    *(measuring.warmth, measuring.pattern),
)


def sums(dice: Random) -> str:
    """A page of one to three worked problems of different kinds."""
    numbers = {"page": str(dice.randint(1, 200)), "grade": str(dice.randint(3, 6))}
    heading = say(dice, "<sum_title>", numbers)
    kinds = dice.sample(KINDS, dice.choice([1, 2, 2, 3]))
    problems = [kind(dice) for kind in kinds]
    if len(problems) > 1:
        label = dice.choice(["Problem", "Example", "Question"])
        problems = [f"{label} {n}\n\n{text}" for n, text in enumerate(problems, start=1)]
    return "\n\n".join([heading, *problems])
