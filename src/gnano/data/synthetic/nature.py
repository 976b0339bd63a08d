"""Lessons on animals, planets and materials, told from typed tables.

The facts decide what is said: which of two animals has more legs, which thing floats, which
of four does not belong.
"""

from random import Random

from gnano.data.synthetic.classroom import NUMBERS, page, school
from gnano.data.synthetic.facts import ANIMALS, GROUPS, PLANETS, SAMPLES
from gnano.data.synthetic.grammar import listing, pool, say, tell, with_article

ORDER = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]

pool(
    "sketch",
    """
{Name} drew {a animal} in {his} notebook, and {other} wrote "{animal}" below it.
[Once|Last {weekday}] {other} saw {a animal} in a film, and {name} has read a whole book about it.
{Name} and {other} looked for a picture of {a animal} in {place}.
"I would like to [draw|see|watch] {a animal}," said {name}, and {other} [agreed|nodded].
""",
)


def animal(dice: Random) -> str:
    """All about one animal."""
    row = dice.choice(ANIMALS)
    legs, general = NUMBERS[int(row["legs"])], GROUPS[row["group"]]
    words = school(dice) | row | {"general": general, "legs": legs}
    heading = """[Lesson: The {ANIMAL}|The {ANIMAL}|What {name} learned about the {animal}]"""
    opening = """
What is {a animal}? [It is {a group}|To begin with, it is {a group}], said {teacher}.
| <class> They [read|talked] about the {animal}.
| The {animal} is [an interesting|a remarkable|a well-known] {group}, as {name} [knew|had heard].
| [Have you ever seen|Did you ever meet] {a animal}? {Name} saw a picture of one in {place}.
"""
    facts = [
        "<as>[it lives in|its home is in|we may find it in|{a animal} lives in] {home}.",
        "<as>[it eats|it feeds on|its food is|{a animal} eats] {food}.",
        "<as>[the {animal}|it] {special}.",
        "[It also|What is more, it|Besides, it|The {animal} also|{Name} read that it also] {also}.",
        "[Like every {group}, it|As {a group}, it|{A animal} is {a group}, so it] {general}.",
        "[It has|{Other} counted in a picture that it has|A grown {animal} has] {legs} legs.",
        "<sketch>",
    ]
    return page(dice, heading, opening, facts, words)


def compare_animals(dice: Random) -> str:
    """Two animals, side by side."""
    a, b = dice.sample(ANIMALS, 2)
    words = school(dice)
    for mark, row in (("a", a), ("b", b)):
        words |= {f"{key}_{mark}": value for key, value in row.items()}
        words[f"number_{mark}"] = NUMBERS[int(row["legs"])]
        words[f"general_{mark}"] = GROUPS[row["group"]]
    more = "animal_a" if int(a["legs"]) > int(b["legs"]) else "animal_b"
    words |= {"more": words[more]}
    heading = """
[The {ANIMAL_A} and the {ANIMAL_B}|{A animal_a} or {a animal_b}?]
| Comparing two animals: {animal_a} and {animal_b}
"""
    opening = """
How are {a animal_a} and {a animal_b} alike, and how do they differ?
| <class> They compared {a animal_a} with {a animal_b}.
| {Name} likes the {animal_a} best, and {other} prefers the {animal_b}. Let us compare [them|the
  two].
"""
    same_group, same_legs = a["group"] == b["group"], a["legs"] == b["legs"]
    facts = [
        "<as>the {animal_a} lives in {home_a}, while the {animal_b} lives in {home_b}."
        " | We find the {animal_a} in {home_a}, but the {animal_b} in {home_b}.",
        "<as>the {animal_a} eats {food_a}, and the {animal_b} eats {food_b}."
        " | While {a animal_a} eats {food_a}, {a animal_b} eats {food_b}.",
        "<as>the {animal_a} {special_a}. The {animal_b}, [however|on the other hand], {special_b}.",
        "Both the {animal_a} and the {animal_b} belong to one group, and {a group_a} {general_a}."
        if same_group
        else "<as>the {animal_a} is {a group_a} and {general_a}. The {animal_b} is {a group_b}: it"
        " {general_b}.",
        "Both the {animal_a} and the {animal_b} have {number_a} legs."
        if same_legs
        else "The {animal_a} has {number_a} legs, and the {animal_b} has {number_b}, so the {more}"
        " has more.",
    ]
    return page(dice, heading, opening, facts, words)


def compare_planets(dice: Random) -> str:
    """Two planets and which of them is nearer to the Sun."""
    a, b = dice.sample(PLANETS, 2)
    near, far = sorted((a, b), key=lambda row: int(row["place"]))
    words = school(dice) | {"near": near["planet"], "far": far["planet"]}
    for mark, row in (("a", a), ("b", b)):
        words |= {f"{key}_{mark}": value for key, value in row.items()}
        words[f"order_{mark}"] = ORDER[int(row["place"]) - 1]
    between = int(far["place"]) - int(near["place"]) - 1
    words["between"] = f"{NUMBERS[between]} other {'planet lies' if between < 2 else 'planets lie'}"
    heading = "[{Planet_a} and {planet_b}|Two Planets|Lesson: {Planet_a} and {Planet_b}]"
    opening = """
<class> They looked at a model of the planets, and {name} chose {planet_a} and {planet_b}.
| {Name} [wrote|gave] a short talk about two planets, {planet_a} and {planet_b}.
| Let us compare {planet_a} with {planet_b}, as {name} and {other} did in {place}.
"""
    facts = [
        "<as>{planet_a} is the {order_a} planet from the Sun, and {planet_b} is the {order_b}.",
        "[So|This means that] {near} is nearer to the Sun than {far}, and {between} between them.",
        "<as>{planet_a} is {size_a}. {Planet_b}, [however|for its part], is {size_b}.",
        "<as>{planet_a} needs {day_a} to turn once, and {planet_b} needs {day_b}.",
        "<as>{planet_a} has {moons_a}, and {planet_b} has {moons_b}.",
        "<as>{planet_a} {mark_a}. [As for {planet_b}, it|{Planet_b}, by contrast,] {mark_b}.",
        "<as>[both planets|{planet_a} and {planet_b}] shine only because the Sun"
        " lights them. | <as>both travel around the Sun.",
    ]
    return page(dice, heading, opening, facts, words)


# what is tested; the question; what the class sets up; what a yes and a no look like; the rule
TESTS = [
    (
        "floats",
        "[Which things float|What floats in water]?",
        "filled a [big bowl|bucket|glass tank] with water",
        "floated",
        "sank",
        "a thing floats when it is lighter than the same amount of water",
    ),
    (
        "magnetic",
        "[What does a magnet pull|Which things stick to a magnet]?",
        "put a strong magnet on the table",
        "stuck to the magnet",
        "did not move",
        "a magnet pulls iron and steel, but not wood, glass, copper or gold",
    ),
    (
        "conducts",
        "[What carries electricity|Which things carry electricity]?",
        "built a circuit with a battery, a small lamp and a gap to close",
        "made the lamp light up",
        "left the lamp dark",
        "metals carry electricity well, while wood, glass, rubber and stone do not",
    ),
]


def experiment(dice: Random) -> str:
    """A few things are tested; what happens follows from what they are made of."""
    rows = dice.sample(SAMPLES, dice.randint(4, 6))
    test, question, setup, yes, no, rule = dice.choice(TESTS)
    words = school(dice) | {"things": listing(with_article(row["thing"]) for row in rows)}
    result = """
The {thing} [|that {name} had brought ]is made of {material}; it {result}.
| [Then|Next|After that] came the {thing}, which {result}. | {Other} tried the {thing}: it {result}.
| {Name} took the {thing}, which is made of {material}, and it {result}.
"""
    results = [
        tell(dice, result, words | row | {"result": yes if row[test] == "yes" else no})
        for row in rows
    ]
    hits = [f"the {row['thing']}" for row in rows if row[test] == "yes"]
    words |= {
        "question": say(dice, question),
        "setup": say(dice, setup),
        "hits": listing(hits) if hits else "none of them",
        "count": NUMBERS[len(rows)],
        "yes": yes,
        "rule": rule,
        "results": " ".join(results),
    }
    return tell(
        dice,
        """
[An experiment|Try it yourself|Experiment on {weekday}|{Name}'s experiment]: {question}

<class> {Name} {setup} and laid out {things}.
| {Name} and {other} collected {things}. Then {name} {setup}.
"[What do you expect|What will happen], {name}?" asked {teacher}. {Name} and {other} wrote down
  [their guesses|what they thought].

{results}

[In the end|So], of the {count} things, {hits} {yes}.
<as>{rule}.
? <remember>
""",
        words,
    )


def odd_one_out(dice: Random) -> str:
    """Four animals, three of one group: which does not belong, and why?"""
    words = school(dice)
    puzzles = []
    for _ in range(dice.randint(2, 4)):
        group = dice.choice(["mammal", "bird", "fish", "insect", "reptile"])
        alike = dice.sample([row for row in ANIMALS if row["group"] == group], 3)
        odd = dice.choice([row for row in ANIMALS if row["group"] != group])
        four = [*alike, odd]
        dice.shuffle(four)
        puzzle = words | {
            "list": listing([row["animal"] for row in four]),
            "odd": odd["animal"],
            "others": listing(["the " + row["animal"] for row in alike]),
            "group": group,
            "plural": "fish" if group == "fish" else f"{group}s",
            "odd_group": odd["group"],
            "general": GROUPS[group],
            "odd_general": GROUPS[odd["group"]],
        }
        text = """
Which one does not belong: {list}? | One of these is different: {list}. Which of them is it, {name}?
| {Other} read out four names: {list}. "Which is the odd one out, {name}?"
[The answer is the {odd}|It is the {odd}|{Name} chose the {odd}], because {others} are {plural},
  but the {odd} is {a odd_group}.
Every {group} {general}, [while|but] {a odd_group} {odd_general}. | <as>{a odd_group} {odd_general}.
"""
        puzzles.append(tell(dice, text, puzzle))
    heading = """
[The odd one out|Which one does not belong?|A puzzle for {other}|Sorting animals with {name}]
| Puzzles for {weekday}
"""
    return "\n\n".join([tell(dice, heading, words), *puzzles])
