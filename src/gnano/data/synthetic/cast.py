"""Who is in a story, where they live and what the day is like: the words plots share.

`scene(dice, ...)` casts a hero, a friend and an elder with their pronouns and picks home and
weather once, so that a story keeps them to its end. What may change from sentence to sentence
(how one feels, how one ends) lies in pools. In a plot's script the bare pronouns `{he}`,
`{him}`, `{his}`, `{himself}` are the hero's; the others are spelled `{friend.he}`, `{elder.he}`.
"""

from random import Random

from gnano.data.synthetic.grammar import names, pool, say, table

GIRLS = names("""
Mia Anna Lily Nora Ella Rosa Clara Ruby Ivy Maya Lucy Emma Zoe Hana Leila Sofia Tara Olive Greta
Alma Nina Eva Kate Priya Amina Daisy Freya Holly Iris June Kira Lena Mabel Nadia Paula Sara Tess
Vera Wendy Yuki
""")
BOYS = names("""
Tom Ben Sam Leo Max Finn Omar Jack Noah Luca Hugo Adam Ravi Theo Oscar Felix Emil Paul Ned Kofi
Jonas Henry Arlo Carl David Eric Frank George Ivan Jasper Kenji Liam Martin Nico Otto Peter
Rashid Simon Toby Victor
""")
PET_NAMES = names("""
Pip Bramble Hazel Thistle Clover Pepper Biscuit Nutmeg Willow Moss Acorn Fern Pebble Button Rusty
Sorrel Juniper Barley Poppy Dusty Maple Cricket Bumble Ginger Olly Tansy
""")
BEASTS = names("""
fox rabbit mouse squirrel hedgehog badger otter mole bear duck frog beaver hare goose raccoon lamb
""")
ELDERS = names("Owl Tortoise Toad Badger Goose Heron Bear Raven")
SURNAMES = names("""
Hill Cole Reed Lane Brook Marsh Field Stone Wood Park Baker Miller Snow Frost Bell Moss Hart Page
Rivers Banks
""")

HERS = {"he": "she", "him": "her", "his": "her", "himself": "herself"}
HIS = {"he": "he", "him": "him", "his": "his", "himself": "himself"}

DAYS = table("""
day; seasons; weather
windy; any; [the wind pulled at every hat and door|leaves were racing down the path]
sunny; any; [the sun was warm on the stones|there was not a cloud in the sky]
cloudy; any; [grey clouds hung low over the roofs|the sky looked like a wool blanket]
foggy; any; [the fog was as thick as milk|nobody could see farther than the next tree]
frosty; winter; [the puddles were covered with thin ice|every blade of grass was white with frost]
quiet; any; [only the birds were talking|even the dogs were asleep]
rainy; summer; [small drops were tapping on the leaves|the paths were full of puddles]
cool; summer; [the air smelled of wet earth|a light mist lay over the fields]
bright; any; [everything looked freshly washed|the light made the windows shine]
hot; summer; [the air trembled above the road|the shade was the best place to be]
""")

pool(
    "town",
    """
a [small|busy|sleepy|friendly] town [by the sea|near the mountains|beside a wide river|by a lake]
a [white|red|yellow|little blue] house [by the sea|near a mill|at the edge of town|on a hill]
a [quiet|tiny|cheerful] village [in the hills|between two rivers|near a pine forest|by the harbour]
[an old|a busy] farmhouse [in a green valley|at the end of a road|near the railway|in the hills]
a [small|sunny|warm] flat [above a bakery|behind the station|by the old bridge|in a big city]
""",
)
pool(
    "wild",
    """
a [green|deep|quiet|sunny] forest [near a lake|at the foot of a mountain|behind the hills]
a [wide|flowery|windy] meadow [beside a stream|between two woods|below a farm]
a [cosy|round|dry] burrow [under an old oak|in a hillside|beside the river|near a stone wall]
a [shady|tall|tangled] hedge [along a country lane|beside a wheat field|near a pond]
""",
)
pool("size", "little\nyoung\nsmall\ncheerful\nclever\nshy\nlively\nkind")
pool(
    "opening",
    """
[Once upon a time|Long ago|Many years ago], <a size> {kind} named {hero} lived in {home}.
[Once there was|There once was|There was once] <a size> {kind} called {hero}, who lived in {home}.
{Hero} was <a size> {kind} [from|who lived in] {home}.
In {home} there lived <a size> {kind} [named|called|by the name of] {hero}.
[This is a story about|This is the tale of|Let me tell you about] {hero}, <a size> {kind} from
  {home}.
""",
)
pool(
    "trait",
    """
<he> [loved|liked] to [ask questions|sing while {he} worked|look at the clouds|collect stones].
<he> was [good at climbing|good at telling jokes|a little impatient|never late|always hungry].
{Hero} was known [to everyone|all around] for {his} [loud laugh|bright eyes|good manners|big ideas].
Most days {hero} [got up early|played outside until dark|helped at home|drew maps of secret places].
In {hero}'s bag there [were always crumbs|was always some string|were feathers and stones].
""",
)
# speech with or without the name of the one who is spoken to; name and pronoun take turns
pool("dear", "[|, {hero}]\n, {hero}")
pool("mate", "[|, {friend}]\n, {friend}")
pool("he", "{He}\n{Hero}")
pool(
    "oneday",
    """
[One|On a|On one] {day} {part},
One {day} [Saturday|Sunday|Monday|Friday|Tuesday] {part},
It was a {day} {part}, and
""",
)
pool(
    "sky",
    """
{Weather}.
{Hero} noticed that {weather}.
That {part} {weather}.
""",
)
pool("glad", "glad\nvery happy\nproud\ncheerful\nfull of joy\nso pleased\ndelighted")
pool("sad", "sad\nworried\nunhappy\nclose to tears\nupset\nvery sorry\ndownhearted")
pool(
    "thanks",
    """
"Thank you, {friend}," said {hero}. "[I could not have done it alone|You are a true friend|I will
  never forget this]<mate>."
"[Thank you so much|Thanks]!" [cried|said] {hero}, and {he} gave {friend} [a big hug|a wide smile].
{Hero} thanked {friend} [three times|again and again|with all {his} heart].
"How can I ever thank you<mate>?" asked {hero}. "[Just be my friend|You would do the same for
  me|Tell me a story tomorrow]," said {friend}.
""",
)
pool(
    "ending",
    """
<lastly>
<lastly>
From that day on, {hero} and {friend} were [the best of friends|hardly ever apart|a good team].
[And so|So] {hero} and {friend} [walked home together|went home singing|shared an apple and watched
  the sunset].
""",
)
pool(
    "lastly",
    """
That [night|evening] {hero} [fell asleep with a smile|slept soundly|dreamed of {dream}].
And whenever {hero} thought of {dream}, {he} [smiled|laughed softly|felt warm inside].
{Hero} [never forgot|always remembered] {dream}.
[In the evening|Before bedtime|At supper] {hero} told the [whole|long] story [to everyone at
  home|twice|from beginning to end].
[It had been a good day|What a day it had been], and {hero} was [tired but happy|ready for
  bed|glad].
""",
)


def _role(role: str, name: str, girl: bool, **more: str) -> dict[str, str]:
    """The words of one role: the name, its pronouns and other ways to speak of it."""
    more |= HERS if girl else HIS
    return {role: name} | {f"{role}.{key}": value for key, value in more.items()}


def child(dice: Random, taken: tuple[str, ...] = ()) -> tuple[str, bool]:
    """A name that is not one of those already taken, and whether it is a girl's."""
    while True:
        girl = dice.random() < 0.5
        name = dice.choice(GIRLS if girl else BOYS)
        if name not in taken:
            return name, girl


def _children(dice: Random) -> dict[str, str]:
    hero, girl = child(dice)
    friend, friend_girl = child(dice, (hero,))
    namesake, aunt = child(dice, (hero, friend))
    pronouns = HERS if girl else HIS
    known = dice.choice(["friend", "best friend", "cousin", "neighbour", "classmate"])
    elder = dice.choice(["Aunt", "Grandma"] if aunt else ["Uncle", "Grandpa"]) + " " + namesake
    kind, friend_kind = ("girl" if is_girl else "boy" for is_girl in (girl, friend_girl))
    intro, whom = f"{pronouns['his']} {known} {friend}", f"a {friend_kind} named {friend}"
    return (
        {"kind": kind, "home": say(dice, "<town>")}
        | pronouns
        | _role("hero", hero, girl)
        | _role("friend", friend, friend_girl, intro=intro, whom=whom, kind=friend_kind)
        | _role("elder", elder, aunt)
    )


def _animals(dice: Random) -> dict[str, str]:
    hero, friend = dice.sample(PET_NAMES, 2)
    kind, friend_kind = dice.sample(BEASTS, 2)
    girl, friend_girl, elder_girl = (dice.random() < 0.5 for _ in range(3))
    elder = f"{'Grandmother' if elder_girl else 'Grandfather'} {dice.choice(ELDERS)}"
    whom = f"{friend} the {friend_kind}"
    return (
        {"kind": kind, "home": say(dice, "<wild>")}
        | (HERS if girl else HIS)
        | _role("hero", hero, girl)
        | _role("friend", friend, friend_girl, intro=whom, whom=whom, kind=friend_kind)
        | _role("elder", elder, elder_girl)
    )


def scene(dice: Random, animals: bool, season: str) -> dict[str, str]:
    """The words of one story: its people or animals, their home and the day."""
    words = _animals(dice) if animals else _children(dice)
    fitting = [day for day in DAYS if season == "any" or day["seasons"] in ("any", season)]
    day = dice.choice(fitting)
    words["part"] = dice.choice(["morning", "afternoon"])
    return words | {"day": day["day"], "weather": say(dice, day["weather"])}
