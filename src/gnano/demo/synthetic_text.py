"""An endless source of stories and textbook passages in simple, correct English.

A quarter of the demo's corpus is generated here, from the scripts and tables in `corpus/`, without
a download. The facts are true, the arithmetic is computed, and a model of a few million parameters
can learn this language. After TinyStories: Eldan & Li 2023, arXiv:2305.07759.

    (seed, k) ──rng──▶ story | page | sums ──▶ passage
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from gnano.data.generators import SourceGenerator
from gnano.data.readers import Document
from gnano.demo.story_cast import CORPUS, LISTS, draw_pupils, draw_scene
from gnano.demo.text_grammar import (
    capitalize,
    join_words,
    render_phrase,
    render_script,
    with_article,
)
from gnano.demo.word_problems import write_sums

CODE_FOLDER = Path(__file__).parent
CODE = ("story_cast", "synthetic_text", "text_grammar", "word_problems")
MIN_CHARS, MAX_CHARS = 400, 1_500  # of a passage
TABLES, TEXTS = CORPUS["tables"], CORPUS["texts"]
PLOTS = [CORPUS["plots"][name] for name in LISTS["plots"]]
NUMBERS = LISTS["numbers"]
GROUPS = {row["group"]: row["general"] for row in TABLES["groups"]}
for animal in TABLES["animals"]:
    animal |= {"number": NUMBERS[int(animal["legs"])], "general": GROUPS[animal["group"]]}

# nobody swims in the frost or rides a sled in the heat
_WINTER = re.compile(r"\b(?:sled|snow|snowy|icy)\b")
_SUMMER = re.compile(r"\b(?:swam|pond|beach|boat|boats|stream|berries|melon|net|rain barrel|bog)\b")


def write_passage(seed: int, index: int) -> str:
    """Return passage `index` of this seed; it depends on nothing else."""
    # a string seeds through SHA-512: neighboring indices share nothing, in any process
    rng = Random(f"gnano synthetic {seed} {index}")
    while True:
        text = rng.choice(_WEIGHTED_FORMS)(rng)
        if MIN_CHARS <= len(text) <= MAX_CHARS:
            return text


def iter_passages(seed: int) -> Iterator[str]:
    """Yield passages without end, no two alike."""
    return (write_passage(seed, index) for index in count())


def hash_generator() -> str:
    """Hash the code and the corpus that determine all passages."""
    digest = hashlib.blake2b(digest_size=16)
    code = [CODE_FOLDER / f"{name}.py" for name in CODE]
    for path in sorted([*code, *CODE_FOLDER.glob("corpus/*.toml")]):
        digest.update(f"{path.name}\0{path.read_text('utf-8')}\0".encode())
    return digest.hexdigest()


PASSAGES = SourceGenerator(lambda: map(Document, iter_passages(seed=0)), hash_generator)


def _write_story(rng: Random) -> str:
    """Write a story of a plot, about a row of its table; most have a title."""
    plot = rng.choice(PLOTS)
    row = rng.choice(plot["rows"])
    about = " ".join(row.values())
    season = "winter" if _WINTER.search(about) else "summer" if _SUMMER.search(about) else "any"
    animals = plot.get("cast") == "animals" or rng.random() < 0.3
    words = draw_scene(rng, animals, plot.get("season", season))
    # a row's cells speak of the cast: "helped {friend.him} up"
    words |= {column: render_phrase(rng, cell, words) for column, cell in row.items()}
    text = render_script(rng, plot["text"], words)
    if rng.random() < 0.7:
        return f"{capitalize(render_phrase(rng, plot['title'], words))}\n\n{text}"
    return text


def _draw_school(rng: Random) -> dict[str, Any]:
    """Draw two pupils, their teacher, a place and a day."""
    words = draw_pupils(rng)
    words |= {"place": rng.choice(LISTS["places"]), "weekday": rng.choice(LISTS["weekdays"])}
    title = rng.choice(["Miss", "Doctor", "Professor"])
    return words | {"teacher": f"{title} {rng.choice(LISTS['surnames'])}"}


def _write_page(rng: Random, text: dict[str, Any], words: dict[str, Any], *more_facts: str) -> str:
    """Write a heading, an opening, the facts in any order in two paragraphs, and a reminder."""
    facts = [*text["facts"], *more_facts]
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
    return _write_page(rng, TEXTS["animal"], _draw_school(rng) | row)


def _write_animal_comparison(rng: Random) -> str:
    a, b = rng.sample(TABLES["animals"], 2)
    more = a if int(a["legs"]) > int(b["legs"]) else b
    words = _draw_school(rng) | _merge_rows(a, b) | {"more": more["animal"]}
    text = TEXTS["compare_animals"]
    group = text["same_group" if a["group"] == b["group"] else "other_group"]
    legs = text["same_legs" if a["legs"] == b["legs"] else "other_legs"]
    return _write_page(rng, text, words, group, legs)


def _write_planet_comparison(rng: Random) -> str:
    a, b = rng.sample(TABLES["planets"], 2)
    near, far = sorted((a, b), key=lambda row: int(row["place"]))
    between = int(far["place"]) - int(near["place"]) - 1
    words = _draw_school(rng) | _merge_rows(a, b) | {"near": near["planet"], "far": far["planet"]}
    words["between"] = f"{NUMBERS[between]} other {'planet lies' if between < 2 else 'planets lie'}"
    return _write_page(rng, TEXTS["compare_planets"], words)


def _write_experiment(rng: Random) -> str:
    """Test a few things; the results follow from their materials."""
    rows = rng.sample(TABLES["samples"], rng.randint(4, 6))
    test = rng.choice(TABLES["tests"])
    words, text = _draw_school(rng) | test, TEXTS["experiment"]
    words["things"] = join_words(with_article(row["thing"]) for row in rows)
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


# the more a form has to say, the larger its weight
FORMS: list[tuple[Callable[[Random], str], int]] = [
    *((_write_story, 50), (write_sums, 17), (_write_why, 5), (_write_quiz, 5)),
    *((_write_subjects, 5), (_write_animal_comparison, 4), (_write_how_to, 3)),
    *((_write_vocabulary, 3), (_write_animal, 2), (_write_experiment, 2)),
    *((_write_odd_one_out, 2), (_write_countries, 1), (_write_planet_comparison, 1)),
]
_WEIGHTED_FORMS = [form for form, weight in FORMS for _ in range(weight)]
