"""A class to learn in: two pupils, a teacher, a place, a day, and how a page is put together."""

from random import Random

from gnano.data.synthetic.cast import HERS, HIS, SURNAMES, child
from gnano.data.synthetic.grammar import Words, pool, tell

NUMBERS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PLACES = [
    *("the library", "the school garden", "the museum", "the kitchen", "the workshop"),
    *("the classroom", "the park", "the reading corner", "the greenhouse", "the school yard"),
]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

pool(
    "class",
    """
[On {weekday}|One {weekday}] {name} [visited|went to see] {teacher} in {place}.
It was {weekday}, and {name} sat in {place} with {other} and {teacher}.
In {place}, {name} and {other} were [working|learning] with {teacher}.
[After lunch on {weekday}|On a {weekday} in spring], {name} met {teacher} in {place}.
{Teacher} came into {place}, where {name} and {other} were waiting.
""",
)
# who says so, if anybody; the empty choice keeps the space before it
pool(
    "as",
    """
[|]
[|]
It is well known that [|]
In fact, [|]
In {other}'s book it says that [|]
As {name} [knew|read|found out], [|]
{Teacher} [said|explained|told {name}] that [|]
{Other} [had read|remembered|wrote down] that [|]
""",
)
pool(
    "remember",
    """
{Name} wrote [this|all of this] down in {his} [notebook|exercise book|diary] that {weekday}.
{Other} [nodded|was surprised|wanted to know more], and {name} [smiled|opened the next book|read
  on].
"[I did not know that|That is good to know|Now I understand]," said {name} to {other}.
[Now {name} could|That evening {name} was able to] explain it to {other}, too.
{Name} and {other} talked about it [all the way home|until the bell rang|for the rest of {weekday}].
""",
)


def school(dice: Random) -> dict[str, str]:
    """Two pupils and a teacher, on some day, somewhere."""
    name, girl = child(dice)
    other, _ = child(dice, (name,))
    return {
        "name": name,
        "other": other,
        "place": dice.choice(PLACES),
        "weekday": dice.choice(WEEKDAYS),
        "teacher": f"{dice.choice(['Miss', 'Doctor', 'Professor'])} {dice.choice(SURNAMES)}",
    } | (HERS if girl else HIS)


def page(dice: Random, heading: str, opening: str, facts: list[str], words: Words) -> str:
    """A heading, an opening, the facts in any order over two paragraphs, something to remember."""
    dice.shuffle(facts)
    half = len(facts) // 2
    # told line by line, for a script of its own for every order would be compiled in vain
    paragraphs = [[heading], [opening, *facts[:half]], [*facts[half:], "<remember>"]]
    return "\n\n".join([" ".join([tell(dice, line, words) for line in p]) for p in paragraphs])
