"""An endless source of stories and textbook passages in simple, correct English.

A quarter of the demo's corpus is generated here, from the scripts and tables in `corpus/`, without
a download. The facts are true, the arithmetic is computed, and a model of a few million parameters
can learn this language. After TinyStories: Eldan & Li 2023, arXiv:2305.07759.

    (seed, k) ──rng──▶ story | lesson | worked problems ──▶ passage
"""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from itertools import count
from math import gcd
from pathlib import Path
from random import Random
from typing import Any

from gnano.data.generators import SourceGenerator
from gnano.data.readers import Document
from gnano.demo.stories import CORPUS, LISTS, PRONOUNS, draw_child, write_story
from gnano.demo.text_grammar import (
    capitalize,
    join_words,
    render_phrase,
    render_script,
    with_article,
)

CODE_FOLDER = Path(__file__).parent
CODE = ("stories", "synthetic_text", "text_grammar")
MIN_CHARS, MAX_CHARS = 400, 1_500  # of a passage
TABLES, TEXTS = CORPUS["tables"], CORPUS["texts"]
PROBLEMS = TEXTS["problem"]
# problems about a word of the list of this name
PROBLEM_LISTS = {"collection": "thing", "sharing": "thing", "part": "thing"}
PROBLEM_LISTS |= {"mean": "what", "fractions": "food", "ground": "ground"}
NUMBERS = LISTS["numbers"]
GROUPS = {row["group"]: row["general"] for row in TABLES["groups"]}
for animal in TABLES["animals"]:
    animal |= {"number": NUMBERS[int(animal["legs"])], "general": GROUPS[animal["group"]]}
for row in [*TABLES["goods"], *TABLES["movers"]]:
    row |= {"low": int(row["low"]), "high": int(row["high"])}  # cents, or km/h


def write_passage(seed: int, index: int) -> str:
    """Return passage `index` of this seed; it depends on nothing else."""
    # a string seeds through SHA-512: neighboring indices share nothing, in any process
    rng = Random(f"gnano synthetic {seed} {index}")
    while True:
        text = rng.choice(_WEIGHTED_FORMS)(rng)
        if MIN_CHARS <= len(text) <= MAX_CHARS:
            return text


def hash_generator() -> str:
    """Hash the code and the corpus that determine all passages."""
    digest = hashlib.blake2b(digest_size=16)
    code = [CODE_FOLDER / f"{name}.py" for name in CODE]
    for path in sorted([*code, *CODE_FOLDER.glob("corpus/*.toml")]):
        digest.update(f"{path.name}\0{path.read_text('utf-8')}\0".encode())
    return digest.hexdigest()


PASSAGES = SourceGenerator(
    lambda: (Document(write_passage(0, index)) for index in count()), hash_generator
)


def _draw_pupils(rng: Random) -> dict[str, Any]:
    """Draw two pupils, `name` and `other`; the pronouns are those of the first."""
    name, is_girl = draw_child(rng)
    other, _ = draw_child(rng, name)
    return {"name": name, "other": other} | PRONOUNS[is_girl]


def _draw_school(rng: Random) -> dict[str, Any]:
    """Draw two pupils, their teacher, a place and a day."""
    words = _draw_pupils(rng)
    words |= {"place": rng.choice(LISTS["places"]), "weekday": rng.choice(LISTS["weekdays"])}
    title = rng.choice(["Miss", "Doctor", "Professor"])
    return words | {"teacher": f"{title} {rng.choice(LISTS['surnames'])}"}


def _write_facts(rng: Random, text: dict[str, Any], words: dict[str, Any], *more: str) -> str:
    """Write a heading, an opening, the facts in any order in two paragraphs, and a reminder."""
    facts = [*text["facts"], *more]
    rng.shuffle(facts)
    half = len(facts) // 2
    # line by line: one script for each order of the facts would be compiled in vain
    opening, ending = [text["opening"], *facts[:half]], [*facts[half:], "<remember>"]
    paragraphs = [
        " ".join([render_script(rng, line, words) for line in lines])
        for lines in ([text["heading"]], opening, ending)
    ]
    return "\n\n".join(paragraphs)


def _merge_rows(a: dict[str, str], b: dict[str, str]) -> dict[str, Any]:
    """Return the words of two rows, with _a and _b appended to their names."""
    return {f"{key}_a": a[key] for key in a} | {f"{key}_b": b[key] for key in b}


def _write_animal(rng: Random) -> str:
    row = rng.choice(TABLES["animals"])
    return _write_facts(rng, TEXTS["animal"], _draw_school(rng) | row)


def _write_animal_comparison(rng: Random) -> str:
    a, b = rng.sample(TABLES["animals"], 2)
    more = a if int(a["legs"]) > int(b["legs"]) else b
    words = _draw_school(rng) | _merge_rows(a, b) | {"more": more["animal"]}
    text = TEXTS["compare_animals"]
    group = text["same_group" if a["group"] == b["group"] else "other_group"]
    legs = text["same_legs" if a["legs"] == b["legs"] else "other_legs"]
    return _write_facts(rng, text, words, group, legs)


def _write_planet_comparison(rng: Random) -> str:
    a, b = rng.sample(TABLES["planets"], 2)
    near, far = sorted((a, b), key=lambda row: int(row["place"]))
    between = int(far["place"]) - int(near["place"]) - 1
    words = _draw_school(rng) | _merge_rows(a, b) | {"near": near["planet"], "far": far["planet"]}
    words["between"] = f"{NUMBERS[between]} other {'planet lies' if between < 2 else 'planets lie'}"
    return _write_facts(rng, TEXTS["compare_planets"], words)


def _write_experiment(rng: Random) -> str:
    """Test a few things; the results follow from their materials."""
    rows = rng.sample(TABLES["samples"], rng.randint(4, 6))
    test = rng.choice(TABLES["tests"])
    words, text = _draw_school(rng) | test, TEXTS["experiment"]
    words["things"] = join_words([with_article(row["thing"]) for row in rows])
    words["results"] = " ".join(
        render_script(rng, text["result"], words | row | {"result": test[row[test["test"]]]})
        for row in rows
    )
    hits = [f"the {row['thing']}" for row in rows if row[test["test"]] == "yes"]
    words |= {key: render_phrase(rng, test[key]) for key in ("question", "setup")}
    words |= {"hits": join_words(hits or ["none of them"]), "count": NUMBERS[len(rows)]}
    return render_script(rng, text["text"], words)


def _write_odd_one_out(rng: Random) -> str:
    """Write puzzles of four animals, three of which are of one group."""
    words = _draw_school(rng)
    puzzles = []
    for _ in range(rng.randint(2, 4)):
        group = rng.choice(["mammal", "bird", "fish", "insect", "reptile"])
        alike = rng.sample([row for row in TABLES["animals"] if row["group"] == group], 3)
        odd = rng.choice([row for row in TABLES["animals"] if row["group"] != group])
        four = [*alike, odd]
        rng.shuffle(four)
        puzzle = words | {f"odd_{key}": odd[key] for key in ("group", "general")}
        puzzle |= {"group": group, "general": alike[0]["general"], "odd": odd["animal"]}
        puzzle["plural"] = "fish" if group == "fish" else f"{group}s"
        puzzle["list"] = join_words([row["animal"] for row in four])
        puzzle["others"] = join_words(["the " + row["animal"] for row in alike])
        puzzles.append(render_script(rng, TEXTS["odd_one_out"]["text"], puzzle))
    return "\n\n".join([render_script(rng, TEXTS["odd_one_out"]["heading"], words), *puzzles])


def _write_subjects(rng: Random) -> str:
    """Describe two things: what each of them is and what it does."""
    words, text = _draw_school(rng), TEXTS["subjects"]
    parts = []
    for n, row in enumerate(rng.sample(TABLES["subjects"], 2)):
        words |= {"thing": row["subject"], "kind": row["kind"], f"thing{n}": row["subject"]}
        sayings = row["sayings"].split(" / ")
        facts = [
            render_script(rng, text["fact"], words | {"saying": saying})
            for saying in rng.sample(sayings, len(sayings))
        ]
        parts.append(" ".join([render_script(rng, text["opening"], words), *facts]))
    if rng.random() < 0.5:
        parts.append(render_phrase(rng, "<remember>", words))
    return "\n\n".join([render_script(rng, text["heading"], words), *parts])


def _write_countries(rng: Random) -> str:
    """Describe three countries: capitals, continents, languages, and what they are known for."""
    words, text = _draw_school(rng), TEXTS["countries"]
    rows = rng.sample(TABLES["countries"], 3)
    continents = len({row["continent"] for row in rows})
    words |= {"first": rows[0]["capital"], "second": rows[1]["country"]}
    words["many"] = render_phrase(rng, text["many"][continents - 1], rows[0])
    parts = [render_script(rng, text["about"], words | row) for row in rows]
    opening = render_script(rng, text["opening"], words)
    return "\n\n".join([opening, *parts, render_script(rng, text["ending"], words)])


def _write_why(rng: Random) -> str:
    """Write a dialog: a pupil asks why, a first guess is wrong, the teacher explains."""
    return render_script(rng, TEXTS["why"]["text"], _draw_school(rng) | rng.choice(TABLES["whys"]))


def _write_quiz(rng: Random) -> str:
    """Write questions and answers from all the tables."""
    eater, walker = rng.sample(TABLES["animals"], 2)
    land, other_land = rng.sample(TABLES["countries"], 2)
    subject = rng.choice(TABLES["subjects"])
    words = _draw_school(rng) | rng.choice(TABLES["whys"]) | rng.choice(TABLES["words"]) | land
    words |= {"thing": subject["subject"], "kind": subject["kind"]}
    words |= {"saying": rng.choice(subject["sayings"].split(" / "))}
    words |= {"eater": eater["animal"], "food": eater["food"]}
    words |= {key: walker[key] for key in ("animal", "group", "home", "number")}
    words |= {"city": other_land["capital"], "city_land": other_land["country"]}
    asker, answerer = rng.choice(LISTS["quiz_labels"]).split("/")
    parts = [render_phrase(rng, TEXTS["quiz"]["heading"], words)]
    for row in rng.sample(TABLES["quiz"], rng.randint(5, 7)):
        text = f"{asker} {row['question']}\n{answerer} {row['answer']}"
        parts.append(render_phrase(rng, text, words))
    return "\n\n".join(parts)


def _write_vocabulary(rng: Random) -> str:
    """Explain a few words: what they mean and how they are used."""
    text = TEXTS["vocabulary"]
    parts = [render_script(rng, text["heading"], _draw_school(rng))]
    for row in rng.sample(TABLES["words"], rng.randint(3, 5)):
        words = _draw_school(rng) | row
        words["example"] = render_phrase(rng, row["use"], words)
        parts.append(render_script(rng, text["entry"], words))
    return "\n\n".join(parts)


def _write_how_to(rng: Random) -> str:
    """Explain a task step by step, as a list or as a story."""
    task, text = rng.choice(TABLES["tasks"]), TEXTS["how_to"]
    steps = task["steps"].split(" / ")
    words = _draw_school(rng) | task | {"count": NUMBERS[len(steps)]}
    if rng.random() < 0.35:
        body = "\n".join(f"{n}. {capitalize(step)}." for n, step in enumerate(steps, start=1))
    else:
        forms = [text["first"], *[text["later"]] * (len(steps) - 2), text["last"]]
        pairs = zip(forms, steps, strict=True)
        body = " ".join([render_script(rng, form, words | {"step": step}) for form, step in pairs])
    heading, opening = (render_script(rng, text[key], words) for key in ("heading", "opening"))
    return "\n\n".join([heading, opening, body, render_script(rng, text["ending"], words)])


def _write_problems(rng: Random) -> str:
    """Write a page of one to three word problems of different kinds, with worked solutions."""
    words = {"page": rng.randint(1, 200), "grade": rng.randint(3, 6)}
    heading = render_phrase(rng, "<sum_title>", words)
    problems = []
    for kind in rng.sample(list(PROBLEMS), rng.choice([1, 2, 2, 3])):
        words = _draw_problem(rng, kind) | _draw_pupils(rng)
        if name := PROBLEM_LISTS.get(kind):
            words[name] = rng.choice(LISTS[name])
        text = PROBLEMS[kind]
        text = text if isinstance(text, str) else rng.choice(text)
        problems.append(render_script(rng, text, words))
    if len(problems) > 1:
        label = rng.choice(["Problem", "Example", "Question"])
        problems = [f"{label} {n}\n\n{text}" for n, text in enumerate(problems, start=1)]
    return "\n\n".join([heading, *problems])


def _draw_problem(rng: Random, kind: str) -> dict[str, Any]:
    """Draw the numbers of a word problem, in whole cents where they are money.

    The corpus writes the equations and computes their results; what else its text names is here.
    """
    words: dict[str, Any] = {}
    match kind:
        case "shop":
            first, second = rng.sample(TABLES["goods"], 2)
            one, two = (rng.randrange(row["low"], row["high"], 5) for row in (first, second))
            paid = next(note for note in (200, 500, 1_000, 2_000) if note > one + two)
            words |= {"one": one, "two": two, "total": one + two, "change": paid - one - two}
            words |= {"first": first["one"], "second": second["one"], "paid": paid}
        case "many_of_one":
            goods = rng.choice(TABLES["goods"])
            price, number = rng.randrange(goods["low"], goods["high"], 5), rng.randint(3, 9)
            words |= goods | {"count": number, "price": price, "total": number * price}
        case "collection":
            a, b, c = (rng.randint(11, 480) for _ in range(3))
            lost = rng.randint(3, a + b - 5)
            words |= {"a": a, "b": b, "c": c, "sum": a + b, "lost": lost, "left": a + b - lost}
            words |= {"total": a + b + c, "a_ones": a % 10, "b_ones": b % 10}
            words |= {"a_tens": a - a % 10, "b_tens": b - b % 10}
        case "sharing":
            heads, each = rng.randint(3, 9), rng.randint(4, 40)
            rest, shared = rng.randrange(heads), heads * each
            left_over = f"and {rest} {'is' if rest == 1 else 'are'} left over"
            words |= {"heads": heads, "each": each, "shared": shared, "total": shared + rest}
            words |= {"end": left_over if rest else "and none is left"}
        case "mean":
            number, mean = rng.choice([3, 4, 5]), rng.randint(30, 95)
            total = mean * number
            values = [mean + rng.randint(-7, 7) for _ in range(number - 1)]
            values.append(total - sum(values))
            words |= {"count": number, "mean": mean, "low": min(values), "high": max(values)}
            words |= {"total": total, "sum": f"{' + '.join(map(str, values))} = {total}"}
            words |= {"values": ", ".join(map(str, values))}
        case "percent":
            rate = rng.choice([5, 10, 15, 20, 25, 30, 40, 50, 60, 75])
            whole, goods = rng.randint(1, 60) * 20, rng.choice(LISTS["goods"])
            part = whole * rate // 100
            words |= {"rate": rate, "whole": whole, "part": part, "left": whole - part}
            words |= {"share": Fraction(whole, 100), "goods": goods}
        case "savings":
            weekly, weeks, start = rng.randint(2, 15), rng.randint(3, 20), rng.randint(1, 40)
            words |= {"weekly": weekly, "weeks": weeks, "start": start, "gap": weekly * weeks}
            words |= {"goal": start + weekly * weeks, "wish": rng.choice(LISTS["wish"])}
        case "journey":
            mover = rng.choice(TABLES["movers"])
            speed, hours = rng.randint(mover["low"], mover["high"]), rng.randint(2, 9)
            words |= mover | {"speed": speed, "hours": hours, "way": speed * hours}
        case "part":
            under = rng.choice([2, 3, 4, 5, 6, 8, 10])
            over = rng.choice([n for n in range(1, under) if gcd(n, under) == 1])
            one = rng.randint(2, 60)
            words |= {"under": under, "over": over, "one": one, "some": one * over}
            words |= {"total": one * under}
        case "fractions":
            under = rng.choice([5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 20])
            a = rng.randint(1, under - 2)
            b = rng.randint(1, under - 1 - a)
            over, answer = a + b, Fraction(a + b, under)
            short = f"No number but 1 divides both {over} and {under}, so it stays."
            if (divisor := gcd(over, under)) > 1:
                short = f"Divide both by {divisor}, and it is shorter: {over}/{under} = {answer}."
            words |= {"under": under, "over": over, "a": a, "b": b}
            words |= {"answer": str(answer), "short": short}
        case "ground":
            long, wide = rng.randint(4, 60), rng.randint(2, 30)
            words |= {"long": long, "wide": wide, "half": long + wide, "area": long * wide}
            words |= {"fence": 2 * (long + wide)}
        case "warmth":
            morning, rise, fall = rng.randint(-9, 8), rng.randint(3, 17), rng.randint(2, 15)
            words |= {"morning": morning, "rise": rise, "fall": fall, "noon": morning + rise}
            words |= {"night": morning + rise - fall, "town": rng.choice(LISTS["town"])}
        case _:  # "pattern"
            start, step = rng.randint(1, 60), rng.randint(2, 25)
            words |= {f"s{n}": start + step * (n - 1) for n in range(1, 7)} | {"step": step}
    return words


# the more a form has to say, the larger its weight
FORMS: list[tuple[Callable[[Random], str], int]] = [
    *((write_story, 50), (_write_problems, 17), (_write_why, 5), (_write_quiz, 5)),
    *((_write_subjects, 5), (_write_animal_comparison, 4), (_write_how_to, 3)),
    *((_write_vocabulary, 3), (_write_animal, 2), (_write_experiment, 2)),
    *((_write_odd_one_out, 2), (_write_countries, 1), (_write_planet_comparison, 1)),
]
_WEIGHTED_FORMS = [form for form, weight in FORMS for _ in range(weight)]
