"""Lessons told by question and answer, word and meaning, step after step."""

from random import Random

from gnano.data.synthetic.classroom import NUMBERS, school
from gnano.data.synthetic.facts import ANIMALS, COUNTRIES
from gnano.data.synthetic.grammar import capital, say, tell
from gnano.data.synthetic.questions import TASKS, WHYS, WORDS
from gnano.data.synthetic.subjects import SUBJECTS


def subjects(dice: Random) -> str:
    """Two things: what each of them is and what it does."""
    words = school(dice)
    opening = """
{Thing} is {kind}. | What is {thing}? {Teacher} answered: it is {kind}.
| "What is {thing}, {teacher}?" asked {name}. "It is {kind}," said {teacher}.
| {Name} wanted to know what {thing} is. {Teacher} said that it is {kind}.
"""
    fact = """
<as>[it|it|{thing}] {saying}. | <as>it {saying}. | It {saying}, as {name} wrote
  down. | Remember, {other}: {thing} {saying}.
"""
    told = []
    for n, (thing, kind, sayings) in enumerate(dice.sample(SUBJECTS, 2)):
        words |= {"thing": thing, "kind": kind, f"thing{n}": thing}
        facts = [
            tell(dice, fact, words | {"saying": saying})
            for saying in dice.sample(sayings, len(sayings))
        ]
        told.append(" ".join([tell(dice, opening, words), *facts]))
    heading = """
{THING0} and {THING1} | Two things explained | {Name} asks about {thing0} and {thing1}
| Good to know: {thing0} and {thing1}
"""
    if dice.random() < 0.5:
        told.append(say(dice, "<remember>", words))
    return "\n\n".join([tell(dice, heading, words), *told])


def countries(dice: Random) -> str:
    """Three countries: capitals, continents, languages, and what they are known for."""
    words = school(dice)
    rows = dice.sample(COUNTRIES, 3)
    about = """
<as>{country} [lies|is a country] in {continent}, and its capital is {capital}.
| <as>the capital of {country} is {capital}, and the country is in {continent}.
| In {continent} {name} found {country} with its capital, {capital}.
[Many people there|Many people in {country}] speak {language}. <as>{country} is known for {known}.
| {Country} is known for {known}. [|<as>{language} is spoken in {capital}.]
| {Other} asked what is spoken in {capital}, and {name} said: {language}. {Country} is known for
  {known}.
"""
    opening = """
[Geography: three countries|Around the World With {Name}|Three Capitals|A journey on the map]

<class> {Name} put a finger on the map.
| {Name} and {other} turned the globe in {place} and stopped it three times.
| {Name} had three stamps in {his} album, each from another country.
"""
    ending = """
{Many} [{Name} found them on the map|{Other} wants to visit {first}|{Name} chose {second} for a
  talk].
"""
    continents = {row["continent"] for row in rows}
    words |= {
        "first": rows[0]["capital"],
        "second": rows[1]["country"],
        "many": "All three are in " + rows[0]["continent"] + "."
        if len(continents) == 1
        else "Two of the three are on the same continent."
        if len(continents) == 2
        else "Each of them is on another continent.",
    }
    parts = [tell(dice, about, words | row) for row in rows]
    return "\n\n".join([tell(dice, opening, words), *parts, tell(dice, ending, words)])


def why(dice: Random) -> str:
    """A pupil asks why; a first guess is wrong; the teacher explains."""
    text = """
[Why {question}?|{Name} asks why|A question for {teacher}|A talk in {place}]

<class> "Why {question}?" asked {name}.
| {Name} had thought about it since {weekday}: why {question}? In {place} {he} asked {teacher}.
| "{Teacher}, may I ask you something?" said {name} in {place}. "Why {question}?"

"[What do you think|Do you have an idea|Can you guess], {other}?" [said|asked] {teacher}.
"Perhaps {guess}," [said|answered] {other}. | "Is it {guess}?" asked {other}.
"[Not quite|That is a funny idea, but no|Many people think so, but it is not right|A good guess,
  but no], {other}," [said|replied] {teacher}. "[Listen|Think about it this way|Here is the
  reason]: {reason}."
"Can you [give|show] us an example, {teacher}?" asked {name}.
| "[Is there an example|Do you know an example], {teacher}?" asked {name}.
"[Of course|Yes|Gladly], {name}," said {teacher}. "[For example|Just think of this|Here is one more
  thing]: {example}."

{Name} [thought for a moment|nodded]. "So I would say it like this: {reason}," {he} said.
| "Now I [see|understand]," said {name}. "And {example}."
"[Exactly|That is right|Well said], {name}," said {teacher}, and [the bell rang|{other} wrote it on
  the board|they went outside].
? <remember>
"""
    return tell(dice, text, school(dice) | dice.choice(WHYS))


def quiz(dice: Random) -> str:
    """Questions and answers from all the tables."""
    eater, walker = dice.sample(ANIMALS, 2)
    land, other_land = dice.sample(COUNTRIES, 2)
    thing, kind, sayings = dice.choice(SUBJECTS)
    words = school(dice) | dice.choice(WHYS) | dice.choice(WORDS) | land
    words |= {"thing": thing, "kind": kind, "saying": dice.choice(sayings)}
    words |= {"eater": eater["animal"], "food": eater["food"]}
    words |= {key: walker[key] for key in ("animal", "group", "home")}
    words |= {"legs": NUMBERS[int(walker["legs"])], "city": other_land["capital"]}
    words |= {"city_land": other_land["country"]}
    asks = ["Question:/Answer:", "Q:/A:", "{Name} asks:/{Other} answers:", "{Teacher}:/{Name}:"]
    asked, answered = dice.choice(asks).split("/")
    told = [say(dice, "[Questions and answers|{Name}'s quiz|A quiz for {weekday}]", words)]
    for question, answer in dice.sample(QUIZ, dice.randint(5, 7)):
        told.append(say(dice, f"{asked} {question}\n{answered} {answer}", words))
    return "\n\n".join(told)


QUIZ = [
    (
        "[What does {a eater} eat|What is the food of {a eater}]?",
        "[It eats|The {eater} eats|As we heard on {weekday}, it eats] {food}.",
    ),
    (
        "How many legs does {a animal} have?",
        "[It has {legs} legs|{Legs} legs], and it is {a group}.",
    ),
    (
        "Where does {a animal} live?",
        "[It lives in|We find it in|Its home is in] {home}.",
    ),
    (
        "[What is|Which city is|Do you know] the capital of {country}?",
        "The capital is {capital}, and {country} lies in {continent}.",
    ),
    (
        "Of which country is {city} the capital?",
        "{City} is the capital of {city_land}.",
    ),
    (
        '[What does the {sort} "{word}" mean|What is meant by the {sort} "{word}"]?',
        '"{Word}" means: {meaning}.',
    ),
    (
        "Why {question}?",
        "[The reason is this|Because of this]: {reason}.",
    ),
    (
        "What is {thing}, and what do we know about it?",
        "It is {kind}. We know that it {saying}.",
    ),
]


def vocabulary(dice: Random) -> str:
    """A few words, what they mean and how they are used."""
    heading = """
[Words of the {weekday} lesson|New words|Word lesson with {teacher}|{Name}'s word list]
| A small dictionary
"""
    entry = """
The {sort} "{word}" [means|has this meaning]: {meaning}. [For example|Here it is in a sentence|An
  example]: {example}.
| {Word} ({sort}): {meaning}. {Other} made up a sentence: "{Example}."
| What does "{word}" mean? [{Teacher} wrote|It means|{Other} looked it up]: {meaning}. "{Example},"
  [wrote|read] {other} in {place}.
| "{Example}." In this sentence, the {sort} "{word}" means: {meaning}.
"""
    parts = [tell(dice, heading, school(dice))]
    for row in dice.sample(WORDS, dice.randint(3, 5)):
        # every sentence has a pupil of its own
        words = school(dice) | row
        parts.append(tell(dice, entry, words | {"example": say(dice, row["use"], words)}))
    return "\n\n".join(parts)


def how_to(dice: Random) -> str:
    """A task, step by step, as a list or told of somebody who does it."""
    goal, needs, steps, done = dice.choice(TASKS)
    words = school(dice) | {"goal": goal, "needs": needs, "done": done}
    words["count"] = NUMBERS[len(steps)]
    heading = (
        "[How to {goal}|{Name} learns to {goal}|Step by step: how to {goal}|Lesson: How to {GOAL}]"
    )
    opening = """
<class> "Today you will learn how to {goal}," said {teacher}. [|{Name} got out {needs}.]
| {Name} wanted to {goal}, and {other} [knew|showed {him}] how. [They needed|{Name} got out]
  {needs}.
| To {goal} you need {needs}. {Name} and {other} tried it on {weekday}. [It takes|There are]
  {count} steps.
"""
    first = """
[First|To begin with|First of all], {step}. | {Name} began: "First I {step}."
"""
    later = """
[Then|Next|After that|Now], {step}. | {Step}. | The next step for {name} was to {step}.
| "[Now|Next], {step}," said {other}. | {Other} helped {name} to {step}.
"""
    last = """
[Last of all|Finally|At the end], {step}. | At last {name} could {step}.
"""
    if dice.random() < 0.35:
        body = "\n".join(f"{n}. {capital(step)}." for n, step in enumerate(steps, start=1))
    else:
        ways = [first, *[later] * (len(steps) - 2), last]
        pairs = zip(ways, steps, strict=True)
        body = " ".join([tell(dice, way, words | {"step": step}) for way, step in pairs])
    ending = """
How did {name} know that it was done? {Done}. | You can tell that it went well when {done}.
| {Name} looked closely. [Was it good|Had it worked]? Yes, for this was the sign: {done}.
? {Name} [was proud|smiled], and {other} [clapped|wanted to try it as well].
? If [it does not work|something goes wrong], [try again|ask {teacher}|begin again with step one].
"""
    told = [tell(dice, heading, words), tell(dice, opening, words), body, tell(dice, ending, words)]
    return "\n\n".join(told)
