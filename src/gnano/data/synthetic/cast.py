"""Who is in a story, where they live and what the day is like: the words plots share.

`scene(dice, ...)` casts a hero, a friend and an elder with their pronouns and picks home and
weather once, so that a story keeps them to its end. What may change from sentence to sentence
(how one feels, how one ends) lies in pools. In a plot's script the bare pronouns `{he}`,
`{him}`, `{his}`, `{himself}` are the hero's; the others are spelled `{friend.he}`, `{elder.he}`.
"""

from random import Random

from gnano.data.synthetic.grammar import pool, say, table

GIRLS = """Mia Anna Lily Nora Ella Rosa Clara Ruby Ivy Maya Lucy Emma Zoe Hana Leila Sofia Tara
Olive Greta Alma Nina Eva Kate Priya Amina Daisy Freya Holly Iris June Kira Lena Mabel Nadia Paula
Sara Tess Vera Wendy Yuki""".split()
BOYS = """Tom Ben Sam Leo Max Finn Omar Jack Noah Luca Hugo Adam Ravi Theo Oscar Felix Emil Paul
Ned Kofi Jonas Henry Arlo Carl David Eric Frank George Ivan Jasper Kenji Liam Martin Nico Otto Peter
Rashid Simon Toby Victor""".split()
PETNAMES = """Pip Bramble Hazel Thistle Clover Pepper Biscuit Nutmeg Willow Moss Acorn Fern Pebble
Button Rusty Sorrel Juniper Barley Poppy Dusty Maple Cricket Bumble Ginger Olly Tansy""".split()
BEASTS = """fox rabbit mouse squirrel hedgehog badger otter mole bear duck frog beaver hare goose
raccoon lamb""".split()
ELDERBEASTS = "Owl Tortoise Toad Badger Goose Heron Bear Raven".split()
SURNAMES = """Hill Cole Reed Lane Brook Marsh Field Stone Wood Park Baker Miller Snow Frost Bell
Moss Hart Page Rivers Banks""".split()

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

pool("town", """
a [small|busy|sleepy|friendly] town [by the sea|near the mountains|beside a wide river|by a lake]
a [white|red|yellow|little blue] house [by the sea|near a mill|at the edge of town|on a hill]
a [quiet|tiny|cheerful] village [in the hills|between two rivers|near a pine forest|by the harbour]
[an old|a busy] farm [in a green valley|at the end of a long road|near the railway|behind the hills]
a [small|sunny|warm] flat [above a bakery|behind the station|by the old bridge|in a big city]
""")
pool("wild", """
a [green|deep|quiet|sunny] forest [near a lake|at the foot of a mountain|behind the hills]
a [wide|flowery|windy] meadow [beside a stream|between two woods|below a farm]
a [cosy|round|dry] burrow [under an old oak|in a hillside|beside the river|near a stone wall]
a [shady|tall|tangled] hedge [along a country lane|beside a wheat field|near a pond]
""")
pool("size", "\n".join(["little", "young", "small", "cheerful", "clever", "shy", "lively", "kind"]))
pool("opening", """
[Once upon a time|Long ago|Many years ago], <a size> {kind} named {hero} lived in {home}.
[Once there was|There once was|There was once] <a size> {kind} called {hero}, who lived in {home}.
{Hero} was <a size> {kind} [from|who lived in] {home}.
In {home} there lived <a size> {kind} [named|called|by the name of] {hero}.
[This is a story about|This is the tale of|Let me tell you about] {hero}, <a size> {kind} from {home}.
""")
pool("trait", """
{He} [loved|liked] to [ask questions|sing while {he} worked|look at the clouds|collect round stones].
{He} was [good at climbing|good at telling jokes|a little impatient|never late|always hungry].
{His} pockets were always full of [string and buttons|crumbs|interesting stones|feathers].
[Everyone there|Everybody|The whole neighbourhood] knew {hero} for {his} [loud laugh|bright eyes|good manners|big ideas].
Most days {hero} [got up early|played outside until dark|helped at home|drew maps of secret places].
""")
pool("oneday", """
[One|On a|On one] {day} [morning|afternoon|day],
One {day} [Saturday|Sunday morning|Monday|Friday afternoon|morning after breakfast],
It was a {day} [morning|afternoon|day], and
""")
pool("sky", """
[Outside, |]{weather}.
It was a {day} [morning|day|afternoon], and {weather}.
That [morning|day|afternoon] {weather}.
""")
pool("glad", "\n".join(
    ["glad", "very happy", "proud", "cheerful", "full of joy", "so pleased", "delighted"]))
pool("sad", "\n".join(
    ["sad", "worried", "unhappy", "close to tears", "upset", "very sorry", "downhearted"]))
pool("thanks", """
"Thank you, {friend}," said {hero}. "[I could not have done it alone|You are a true friend|I will never forget this]."
"[Thank you so much|Thanks]!" [cried|said] {hero}, and {he} gave {friend} [a big hug|the widest smile].
{Hero} thanked {friend} [three times|again and again|with all {his} heart].
"How can I ever thank you?" asked {hero}. "[Just be my friend|You would do the same for me|Tell me a story tomorrow]," said {friend}.
""")
pool("ending", """
<lastly>
<lastly>
From that day on, {hero} and {friend} were [the best of friends|hardly ever apart|a good team].
[And so|So] {hero} and {friend} [walked home together|went home singing|shared an apple and watched the sunset].
""")
pool("lastly", """
That [night|evening] {hero} [fell asleep with a smile|slept soundly|dreamed of {dream}].
And whenever {hero} thought of {dream}, {he} [smiled|laughed softly|felt warm inside].
{Hero} [never forgot|always remembered] {dream}.
[In the evening|Before bedtime|At supper] {hero} told the [whole|long] story [to everyone at home|twice|from beginning to end].
[It had been a good day|What a day it had been], and {hero} was [tired but happy|ready for bed|glad of it].
""")


def _person(role: str, name: str, girl: bool, **more: str) -> dict[str, str]:
    said = {role: name} | {f"{role}.{key}": value for key, value in more.items()}
    return said | {f"{role}.{key}": value for key, value in (HERS if girl else HIS).items()}


def child(dice: Random, but: tuple[str, ...] = ()) -> tuple[str, bool]:
    """A name that is not one of those already taken, and whether it is a girl's."""
    while True:
        girl = dice.random() < 0.5
        name = dice.choice(GIRLS if girl else BOYS)
        if name not in but:
            return name, girl


def _children(dice: Random) -> dict[str, str]:
    hero, girl = child(dice)
    friend, friend_girl = child(dice, (hero,))
    his = (HERS if girl else HIS)["his"]
    known = ["friend", "best friend", "cousin", "neighbour", "classmate"]
    aunt = dice.random() < 0.5
    rank = dice.choice(["Aunt", "Grandma"] if aunt else ["Uncle", "Grandpa"])
    # no family member shares a child's name
    name, _ = child(dice, (hero, friend))
    while (name in GIRLS) != aunt:
        name, _ = child(dice, (hero, friend))
    return (
        _person("hero", hero, girl)
        | (HERS if girl else HIS)
        | {"kind": "girl" if girl else "boy", "home": say(dice, "<town>")}
        | _person("friend", friend, friend_girl, intro=f"{his} {dice.choice(known)} {friend}",
                  whom=f"a {'girl' if friend_girl else 'boy'} named {friend}")
        | _person("elder", f"{rank} {name}", aunt, intro=f"{his} {rank} {name}"
                  if dice.random() < 0.3 else f"{rank} {name}")
    )


def _animals(dice: Random) -> dict[str, str]:
    hero, friend = dice.sample(PETNAMES, 2)
    kind, other = dice.sample(BEASTS, 2)
    girl, friend_girl, elder_girl = (dice.random() < 0.5 for _ in range(3))
    elder = ("Grandmother " if elder_girl else "Grandfather ") + dice.choice(ELDERBEASTS)
    return (
        _person("hero", hero, girl)
        | (HERS if girl else HIS)
        | {"kind": kind, "home": say(dice, "<wild>")}
        | _person("friend", friend, friend_girl, intro=f"{friend} the {other}",
                  whom=f"{friend} the {other}")
        | _person("elder", elder, elder_girl, intro=f"wise old {elder}")
    )


def scene(dice: Random, animals: bool, season: str) -> dict[str, str]:
    """The words of one story: its people or animals, their home and the day."""
    words = _animals(dice) if animals else _children(dice)
    day = dice.choice([day for day in DAYS if season in ("any", day["seasons"])
                       or day["seasons"] == "any"])
    return words | {"day": day["day"], "weather": say(dice, day["weather"])}
