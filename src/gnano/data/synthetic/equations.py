"""Numbers on paper: an equation is printed with a right side that was computed, never typed.

Money is counted in whole cents and written in dollars. Every problem also needs somebody to
whom it happens, and a few ways to begin and to check, which are here too.
"""

from fractions import Fraction
from random import Random

from gnano.data.synthetic.cast import HERS, HIS, child
from gnano.data.synthetic.grammar import names, pool

THINGS = names("""
marbles stamps shells buttons stickers walnuts beads cards seeds eggs plums cookies tiles chairs
books bricks flowers coins pears cups
""")

pool(
    "think",
    """
[First|To begin with], {name} [wrote down what was known|drew a small picture].
{Name} [solves|solved] this [step by step|in small steps|with care].
{Name} read [the problem again|all the numbers first].
{Name} [took {his} time|did not hurry]: one step after another.
""",
)


pool(
    "check",
    """
[We can check this|Let us check|To check]:
[Is this right|Can that be right]? Work backwards:
""",
)


def number(value: Fraction | int) -> str:
    """1200 -> '1,200'; 5/2 -> '2.5'; a value that has no short decimal stays a fraction."""
    value = Fraction(value)
    if value.denominator == 1:
        return f"{value.numerator:,}"
    if 100 % value.denominator == 0:
        return f"{float(value):,.2f}".rstrip("0")
    return f"{value.numerator}/{value.denominator}"


def equation(sign: str, *parts: int | Fraction) -> str:
    """'3 + 4 + 5 = 12': the parts joined by one sign, from left to right, and their result."""
    total = Fraction(parts[0])
    for part in parts[1:]:
        total = {"+": total + part, "-": total - part, "×": total * part}.get(
            sign, total / part if part else total
        )
    return f"{f' {sign} '.join(number(part) for part in parts)} = {number(total)}"


def dollars(cents: int) -> str:
    return f"${cents / 100:.2f}"


def money(sign: str, *cents: int) -> str:
    """'2.50 + 1.25 = 3.75', from amounts in cents."""
    total = sum(cents) if sign == "+" else cents[0] - sum(cents[1:])
    return f"{f' {sign} '.join(f'{c / 100:.2f}' for c in cents)} = {total / 100:.2f}"


def pupil(dice: Random) -> dict[str, str]:
    name, girl = child(dice)
    other, _ = child(dice, (name,))
    return {"name": name, "other": other} | (HERS if girl else HIS)
