"""Draws the cast and the scene of a passage, and loads the corpus files they are drawn from."""

from pathlib import Path
from random import Random

from gnano.demo.text_grammar import load_corpus, render_phrase

CORPUS = load_corpus(Path(__file__).with_name("corpus"))
LISTS = CORPUS["lists"]
PRONOUNS = {  # by whether it is a girl
    True: {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    False: {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}


def _draw_child(rng: Random, *taken: str) -> tuple[str, bool]:
    """Draw a name that is not taken, and whether it is a girl's."""
    while True:
        is_girl = rng.random() < 0.5
        name = rng.choice(LISTS["girls" if is_girl else "boys"])
        if name not in taken:
            return name, is_girl


def draw_pupils(rng: Random) -> dict[str, str]:
    """Draw two pupils, `name` and `other`; the pronouns are those of the first."""
    name, is_girl = _draw_child(rng)
    other, _ = _draw_child(rng, name)
    return {"name": name, "other": other} | PRONOUNS[is_girl]


def draw_scene(rng: Random, animals: bool, season: str) -> dict[str, str]:
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
        hero, girl = _draw_child(rng)
        friend, friend_girl = _draw_child(rng, hero)
        namesake, elder_girl = _draw_child(rng, hero, friend)
        kind, friend_kind = ("girl" if is_girl else "boy" for is_girl in (girl, friend_girl))
        known = rng.choice(["friend", "best friend", "cousin", "neighbour", "classmate"])
        elder = rng.choice(["Aunt", "Grandma"] if elder_girl else ["Uncle", "Grandpa"])
        elder = f"{elder} {namesake}"
        intro, whom = f"{PRONOUNS[girl]['his']} {known} {friend}", f"a {friend_kind} named {friend}"
    words = {"hero": hero, "kind": kind, "friend": friend, "elder": elder} | PRONOUNS[girl]
    words |= {"friend.intro": intro, "friend.whom": whom, "friend.kind": friend_kind}
    words |= {f"friend.{key}": pronoun for key, pronoun in PRONOUNS[friend_girl].items()}
    words |= {f"elder.{key}": pronoun for key, pronoun in PRONOUNS[elder_girl].items()}
    words["home"] = render_phrase(rng, "<wild>" if animals else "<town>")
    days = CORPUS["tables"]["days"]
    day = rng.choice([row for row in days if season == "any" or row["seasons"] in ("any", season)])
    words["part"] = rng.choice(["morning", "afternoon"])
    return words | {"day": day["day"], "weather": render_phrase(rng, day["weather"])}
