"""Word problems with worked solutions: code draws the numbers, the corpus has the words.

Money is counted in whole cents. The corpus writes the equations; only their terms are given
here, and the results are computed when the text is rendered.
"""

from fractions import Fraction
from math import gcd
from random import Random
from typing import Any

from gnano.demo.story_cast import CORPUS, draw_pupils
from gnano.demo.text_grammar import format_equation, render_phrase, render_script

Words = dict[str, Any]
LISTS, TABLES, TEXTS = CORPUS["lists"], CORPUS["tables"], CORPUS["texts"]["problem"]


def write_sums(rng: Random) -> str:
    """Write a page of one to three worked problems of different kinds."""
    words = {"page": rng.randint(1, 200), "grade": rng.randint(3, 6)}
    heading = render_phrase(rng, "<sum_title>", words)
    problems = [write(rng) for write in rng.sample(PROBLEMS, rng.choice([1, 2, 2, 3]))]
    if len(problems) > 1:
        label = rng.choice(["Problem", "Example", "Question"])
        problems = [f"{label} {n}\n\n{text}" for n, text in enumerate(problems, start=1)]
    return "\n\n".join([heading, *problems])


def _write_problem(rng: Random, name: str, list_name: str = "", **words: Any) -> str:
    """Write the problem `name` about two pupils, with a word drawn from the list, if any."""
    words |= draw_pupils(rng)
    if list_name:
        words[list_name] = rng.choice(LISTS[list_name])
    text = TEXTS[name]
    return render_script(rng, text if isinstance(text, str) else rng.choice(text), words)


def _draw_price(rng: Random, goods: dict[str, str]) -> int:
    return rng.randrange(int(goods["low"]), int(goods["high"]), 5)


def _shop(rng: Random) -> str:
    first, second = rng.sample(TABLES["goods"], 2)
    one, two = _draw_price(rng, first), _draw_price(rng, second)
    paid = next(note for note in (200, 500, 1_000, 2_000) if note > one + two)
    words = {"first": first["one"], "second": second["one"], "change": paid - one - two}
    return _write_problem(rng, "shop", one=one, two=two, total=one + two, paid=paid, **words)


def _many_of_one(rng: Random) -> str:
    goods = rng.choice(TABLES["goods"])
    price = _draw_price(rng, goods)
    count = rng.randint(3, 9)
    words = goods | {"count": count, "price": price, "total": count * price}
    return _write_problem(rng, "many_of_one", **words)


def _collection(rng: Random) -> str:
    a, b, c = (rng.randint(11, 480) for _ in range(3))
    lost = rng.randint(3, a + b - 5)
    words: Words = {"a": a, "b": b, "c": c, "lost": lost, "left": a + b - lost}
    words |= {"sum": a + b, "total": a + b + c, "a_ones": a % 10, "b_ones": b % 10}
    words |= {"a_tens": a - a % 10, "b_tens": b - b % 10}
    return _write_problem(rng, "collection", "thing", **words)


def _sharing(rng: Random) -> str:
    heads, each = rng.randint(3, 9), rng.randint(4, 40)
    rest = rng.randrange(heads)
    end = f"and {rest} {'is' if rest == 1 else 'are'} left over" if rest else "and none is left"
    words: Words = {"heads": heads, "each": each, "shared": heads * each}
    words["total"] = words["shared"] + rest
    return _write_problem(rng, "sharing", "thing", end=end, **words)


def _mean(rng: Random) -> str:
    count = rng.choice([3, 4, 5])
    mean = rng.randint(30, 95)
    values = [mean + rng.randint(-7, 7) for _ in range(count - 1)]
    values.append(mean * count - sum(values))
    words: Words = {"count": count, "mean": mean, "low": min(values), "high": max(values)}
    words |= {"total": mean * count, "values": ", ".join(map(str, values))}
    return _write_problem(rng, "mean", "what", sum=format_equation("+", values), **words)


def _percent(rng: Random) -> str:
    rate = rng.choice([5, 10, 15, 20, 25, 30, 40, 50, 60, 75])
    whole = rng.randint(1, 60) * 20
    part = whole * rate // 100
    words: Words = {"rate": rate, "whole": whole, "part": part, "left": whole - part}
    words |= {"share": Fraction(whole, 100), "goods": rng.choice(LISTS["goods"])}
    return _write_problem(rng, "percent", **words)


def _savings(rng: Random) -> str:
    weekly, weeks, start = rng.randint(2, 15), rng.randint(3, 20), rng.randint(1, 40)
    words: Words = {"weekly": weekly, "weeks": weeks, "start": start, "gap": weekly * weeks}
    words |= {"goal": start + weekly * weeks, "wish": rng.choice(LISTS["wish"])}
    return _write_problem(rng, "savings", **words)


def _journey(rng: Random) -> str:
    mover = rng.choice(TABLES["movers"])
    speed, hours = rng.randint(int(mover["low"]), int(mover["high"])), rng.randint(2, 9)
    words = mover | {"speed": speed, "hours": hours, "way": speed * hours}
    return _write_problem(rng, "journey", **words)


def _part(rng: Random) -> str:
    under = rng.choice([2, 3, 4, 5, 6, 8, 10])
    over = rng.choice([n for n in range(1, under) if gcd(n, under) == 1])
    one = rng.randint(2, 60)
    words = {"under": under, "over": over, "one": one, "total": one * under, "some": one * over}
    return _write_problem(rng, "part", "thing", **words)


def _fractions(rng: Random) -> str:
    under = rng.choice([5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 20])
    a = rng.randint(1, under - 2)
    b = rng.randint(1, under - 1 - a)
    over, total = a + b, Fraction(a + b, under)
    answer = f"{total.numerator}/{total.denominator}"
    short = f"No number but 1 divides both {over} and {under}, so it stays."
    if total.denominator != under:
        divisor = over // total.numerator
        short = f"Divide both by {divisor}, and it is shorter: {over}/{under} = {answer}."
    words = {"under": under, "over": over, "a": a, "b": b, "answer": answer, "short": short}
    return _write_problem(rng, "fractions", "food", **words)


def _ground(rng: Random) -> str:
    long, wide = rng.randint(4, 60), rng.randint(2, 30)
    words: Words = {"half": long + wide, "area": long * wide, "fence": 2 * (long + wide)}
    return _write_problem(rng, "ground", "ground", long=long, wide=wide, **words)


def _warmth(rng: Random) -> str:
    morning, rise, fall = rng.randint(-9, 8), rng.randint(3, 17), rng.randint(2, 15)
    words: Words = {"morning": morning, "rise": rise, "fall": fall}
    words["town"] = rng.choice(LISTS["town"])
    return _write_problem(rng, "warmth", noon=morning + rise, night=morning + rise - fall, **words)


def _pattern(rng: Random) -> str:
    start, step = rng.randint(1, 60), rng.randint(2, 25)
    words: Words = {f"s{n}": start + step * (n - 1) for n in range(1, 7)}
    return _write_problem(rng, "pattern", step=step, **words)


PROBLEMS = (
    *(_shop, _many_of_one, _collection, _sharing, _mean, _percent, _savings),
    *(_journey, _part, _fractions, _ground, _warmth, _pattern),
)
