"""Stories of the generated corpus: a cast and a scene, drawn for a plot of `corpus/stories_*.toml`.

The module also loads the corpus files, for all generated texts.
"""

import re
from pathlib import Path
from random import Random

from gnano.demo.text_grammar import capitalize, load_corpus, render_phrase, render_script

CORPUS = load_corpus(Path(__file__).with_name("corpus"))
LISTS = CORPUS["lists"]
PLOTS = [CORPUS["plots"][name] for name in LISTS["plots"]]
PRONOUNS = {  # by whether it is a girl
    True: {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    False: {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}
# nobody swims in the frost or rides a sled in the heat
_WINTER = re.compile(r"\b(?:sled|snow|snowy|icy)\b")
_SUMMER = re.compile(r"\b(?:swam|pond|beach|boat|boats|stream|berries|melon|net|rain barrel|bog)\b")


def write_story(rng: Random) -> str:
    """Write a story of a plot, about a row of its table; most have a title."""
    plot = rng.choice(PLOTS)
    row = rng.choice(plot["rows"])
    about = " ".join(row.values())
    season = "winter" if _WINTER.search(about) else "summer" if _SUMMER.search(about) else "any"
    animals = plot.get("cast") == "animals" or rng.random() < 0.3
    words = _draw_scene(rng, animals, plot.get("season", season))
    # a row's cells speak of the cast: "helped {friend.him} up"
    words |= {column: render_phrase(rng, cell, words) for column, cell in row.items()}
    text = render_script(rng, plot["text"], words)
    if rng.random() < 0.7:
        return f"{capitalize(render_phrase(rng, plot['title'], words))}\n\n{text}"
    return text


def draw_child(rng: Random, *taken: str) -> tuple[str, bool]:
    """Draw a name that is not taken, and whether it is a girl's."""
    while True:
        is_girl = rng.random() < 0.5
        name = rng.choice(LISTS["girls" if is_girl else "boys"])
        if name not in taken:
            return name, is_girl


def _draw_scene(rng: Random, animals: bool, season: str) -> dict[str, str]:
    """Draw the words of a story: its hero, friend and elder, their home and the day.

    The bare pronouns `{he}`, `{him}`, `{his}`, `{himself}` are the hero's; the others are spelled
    `{friend.he}`, `{elder.he}`.
    """
    if animals:
        hero, friend = rng.sample(LISTS["pet_names"], 2)
        kind, friend_kind = rng.sample(LISTS["beasts"], 2)
        girl, friend_girl, elder_girl = (rng.random() < 0.5 for _ in range(3))
        elder = f"{'Grandmother' if elder_girl else 'Grandfather'} {rng.choice(LISTS['elders'])}"
        intro = whom = f"{friend} the {friend_kind}"
    else:
        hero, girl = draw_child(rng)
        friend, friend_girl = draw_child(rng, hero)
        namesake, elder_girl = draw_child(rng, hero, friend)
        kind, friend_kind = ("girl" if is_girl else "boy" for is_girl in (girl, friend_girl))
        known = rng.choice(["friend", "best friend", "cousin", "neighbour", "classmate"])
        elder = rng.choice(["Aunt", "Grandma"] if elder_girl else ["Uncle", "Grandpa"])
        elder = f"{elder} {namesake}"
        intro, whom = f"{PRONOUNS[girl]['his']} {known} {friend}", f"a {friend_kind} named {friend}"
    words = {"hero": hero, "kind": kind, "friend": friend, "elder": elder} | PRONOUNS[girl]
    words |= {"friend.intro": intro, "friend.whom": whom, "friend.kind": friend_kind}
    for person, is_girl in ("friend", friend_girl), ("elder", elder_girl):
        words |= {f"{person}.{key}": pronoun for key, pronoun in PRONOUNS[is_girl].items()}
    words["home"] = render_phrase(rng, "<wild>" if animals else "<town>")
    days = CORPUS["tables"]["days"]
    day = rng.choice([row for row in days if season == "any" or row["seasons"] in ("any", season)])
    words["part"] = rng.choice(["morning", "afternoon"])
    return words | {"day": day["day"], "weather": render_phrase(rng, day["weather"])}
