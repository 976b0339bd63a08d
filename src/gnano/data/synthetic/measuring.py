"""Problems about parts and sizes: journeys, fractions, areas, temperatures, patterns."""

from fractions import Fraction
from math import gcd
from random import Random

from gnano.data.synthetic.equations import THINGS, equation, number, pupil
from gnano.data.synthetic.grammar import table, tell

MOVERS = table("""
mover; low; high
train; 60; 140
cyclist; 12; 24
bus; 40; 80
walker; 3; 6
ship; 18; 36
car; 50; 110
rider on a horse; 9; 16
lorry; 45; 85
""")


GROUNDS = ["garden", "field", "classroom", "kitchen floor", "playground", "carpet", "vegetable bed"]


def journey(dice: Random) -> str:
    mover = dice.choice(MOVERS)
    speed, hours = dice.randint(int(mover["low"]), int(mover["high"])), dice.randint(2, 9)
    words = pupil(dice) | {
        "mover": mover["mover"],
        "speed": str(speed),
        "hours": str(hours),
        "way": number(speed * hours),
        "times": equation("×", speed, hours),
        "by_speed": equation("÷", speed * hours, speed),
        "by_time": equation("÷", speed * hours, hours),
    }
    return tell(
        dice,
        dice.choice(
            [
                """
{A mover} travels at {speed} kilometres an hour for {hours} hours. How far does it get?

[Distance is speed times time|In each hour it covers {speed} kilometres]. So we multiply: {times}.
? <check> {by_time}, which is the speed.
Answer: the {mover} covers {way} kilometres in {hours} hours.
""",
                """
{A mover} covers {way} kilometres at a steady {speed} kilometres an hour. How long does the journey
  take?

? <think>
Time is distance divided by speed: {by_speed}. | How many times does {speed} fit into {way}?
  {by_speed}.
? <check> {times}. [That is the whole way|It fits].
Answer: the journey takes {hours} hours.
""",
                """
{A mover} needs {hours} hours for {way} kilometres. What is its average speed?

Speed is distance divided by time. We divide: {by_time}.
? <think>
? That means that it covers {speed} kilometres in one hour, [more or less|on average].
Answer: the average speed is {speed} kilometres an hour.
""",
            ]
        ),
        words,
    )


def part(dice: Random) -> str:
    under = dice.choice([2, 3, 4, 5, 6, 8, 10])
    over = dice.choice([n for n in range(1, under) if gcd(n, under) == 1])
    one = dice.randint(2, 60)
    words = pupil(dice) | {
        "thing": dice.choice(THINGS),
        "part": f"{over}/{under}",
        "under": str(under),
        "over": str(over),
        "total": str(one * under),
        "one": str(one),
        "some": str(one * over),
        "by": equation("÷", one * under, under),
        "times": equation("×", one, over),
        "rest": equation("-", one * under, one * over),
        "left": str(one * (under - over)),
    }
    return tell(
        dice,
        """
{Name} has {total} {thing} and gives {part} of them to {other}. How many {thing} does {other} get?
| How many {thing} are {part} of {total} {thing}?

The lower number, {under}, says into how many equal parts we divide: {by}.
| [To find a fraction of a number|First], divide by the lower number: {by}. So one part is {one}.
The upper number, {over}, says how many parts we take: {times}.
? What remains is {rest}.
Answer: {part} of {total} {thing} is {some} {thing}.
""",
        words,
    )


def fractions(dice: Random) -> str:
    under = dice.choice([5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 20])
    a = dice.randint(1, under - 2)
    b = dice.randint(1, under - 1 - a)
    total = Fraction(a + b, under)
    shorter = total.denominator != under
    words = pupil(dice) | {
        "a": f"{a}/{under}",
        "b": f"{b}/{under}",
        "under": str(under),
        "over": str(a + b),
        "food": dice.choice(
            ["cake", "pizza", "loaf", "melon", "bar of chocolate", "pie", "cheese"]
        ),
        "tops": equation("+", a, b),
        "sum": f"{a}/{under} + {b}/{under} = {a + b}/{under}",
        "answer": f"{total.numerator}/{total.denominator}",
        "short": f"Divide both by {(a + b) // total.numerator}, and it is shorter: "
        f"{a + b}/{under} = {total.numerator}/{total.denominator}."
        if shorter
        else f"No number but 1 divides both {a + b} and {under}, so it stays.",
    }
    return tell(
        dice,
        """
{Name} eats {a} of a {food}, and {other} eats {b} of it. What part of the {food} have they eaten?
| Of one {food}, {a} is gone in the morning and {b} in the evening. How much of the {food} is gone
  in all?

[Both fractions have the lower number {under}|Both lower numbers are {under}], so the pieces are of
  the same size.
| [Each piece is one of {under}|The {food} was cut into {under} equal pieces].
Add the upper numbers: {tops}. [That is|So] {sum}.
{short}
Answer: {answer} of the {food}.
""",
        words,
    )


def ground(dice: Random) -> str:
    long, wide = dice.randint(4, 60), dice.randint(2, 30)
    words = pupil(dice) | {
        "ground": dice.choice(GROUNDS),
        "long": str(long),
        "wide": str(wide),
        "area": equation("×", long, wide),
        "half": equation("+", long, wide),
        "round": equation("×", 2, long + wide),
        "squares": number(long * wide),
        "fence": str(2 * (long + wide)),
    }
    return tell(
        dice,
        """
A {ground} is {long} metres long and {wide} metres wide. What is the area of the {ground}, and how
  long is the way around it?
| {Name} measures a {ground}: {long} metres by {wide} metres. Find the area and the perimeter of the
  {ground}.

The area of a rectangle is length times width: {area} square metres.
| [Think of rows of square tiles|Imagine tiles of one metre]: {long} in a row and {wide} rows make
  {area}.
[The perimeter goes along all four sides|Around it we walk each side twice]: one length and one
  width are {half}, and {round}.
Answer: the area is {squares} square metres, and the perimeter is {fence} metres.
""",
        words,
    )


def warmth(dice: Random) -> str:
    morning, rise = dice.randint(-9, 8), dice.randint(3, 17)
    fall = dice.randint(2, 15)
    noon, night = morning + rise, morning + rise - fall
    town = dice.choice(
        ["village", "harbour", "valley", "mountain hut", "city", "farm", "lighthouse"]
    )
    words = pupil(dice) | {
        "town": town,
        "morning": str(morning),
        "rise": str(rise),
        "fall": str(fall),
        "up": equation("+", morning, rise),
        "down": equation("-", noon, fall),
        "night": str(night),
    }
    return tell(
        dice,
        """
In the morning it is {morning} degrees in the {town}. By noon the temperature rises by {rise}
  degrees, and in the
  evening it falls by {fall}. How warm is it in the {town} then?
| A thermometer in the {town} shows {morning} degrees. It climbs by {rise} degrees and then drops by
  {fall}. What does
  it show [now|in the end]?

[Rising means adding|To rise is to add]: {up}. [Falling means taking away|To fall is to subtract]:
  {down}.
? A number with a minus sign lies below zero[, where water freezes|].
Answer: it is {night} degrees.
""",
        words,
    )


def pattern(dice: Random) -> str:
    start, step = dice.randint(1, 60), dice.randint(2, 25)
    shown = [start + step * n for n in range(4)]
    words = pupil(dice) | {
        "shown": ", ".join(map(str, shown)),
        "step": str(step),
        "gap": equation("-", shown[1], shown[0]),
        "again": equation("-", shown[3], shown[2]),
        "next": equation("+", shown[3], step),
        "then": equation("+", shown[3] + step, step),
        "answer": f"{shown[3] + step} and {shown[3] + 2 * step}",
    }
    return tell(
        dice,
        """
Which two numbers come next after {shown}?
| {Name} writes a row of numbers: {shown}. Which two should {name} write next?

Look at the steps between the numbers: {gap}, and {again}. [Every step is {step}|The row grows by
  {step} each time].
So the next number is {next}, and the one after it is {then}.
Answer: {answer}.
""",
        words,
    )
