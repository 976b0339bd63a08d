"""A story: a plot, a row of its table, a cast, and a day that fits.

plot ──row──▶ what it is about ─┐
cast ──────▶ who, where, when ──┴──tell──▶ title and text
"""

import re
from random import Random

from gnano.data.synthetic.cast import scene
from gnano.data.synthetic.grammar import capital, say, tell
from gnano.data.synthetic.plots import Plot
from gnano.data.synthetic.plots_of_courage import ERRAND, FEAR, NOISE
from gnano.data.synthetic.plots_of_friends import CONTEST, NEWCOMER, QUARREL
from gnano.data.synthetic.plots_of_need import GIFT, LOST, RESCUE, SECRET
from gnano.data.synthetic.plots_of_patience import BOAST, GARDEN

PLOTS: tuple[Plot, ...] = (
    *(LOST, RESCUE, GIFT, SECRET, FEAR, ERRAND),
    *(NOISE, QUARREL, CONTEST, NEWCOMER, GARDEN, BOAST),
)

# nobody swims in the frost or rides a sled in the heat
_WINTER = re.compile(r"\b(?:sled|snow|snowy|icy)\b")
_SUMMER = re.compile(r"\b(?:swam|pond|beach|boat|boats|stream|berries|melon|net|rain barrel|bog)\b")


def story(dice: Random) -> str:
    """One story; most have a title."""
    plot = dice.choice(PLOTS)
    row = dice.choice(plot.rows)
    about = " ".join(row.values())
    season = "winter" if _WINTER.search(about) else "summer" if _SUMMER.search(about) else "any"
    animals = plot.cast == "animals" or dice.random() < 0.3
    words = scene(dice, animals, plot.season if plot.season != "any" else season)
    # a row's cells speak of the cast: "helped {friend.him} up"
    words |= {column: say(dice, cell, words) for column, cell in row.items()}
    text = tell(dice, plot.text, words)
    if dice.random() < 0.7:
        return f"{capital(say(dice, plot.title, words))}\n\n{text}"
    return text
