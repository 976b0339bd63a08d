"""Worked arithmetic: a small problem, the way to its answer, and the answer.

Every equation is printed by `equation`, which computes its right side; no number of a result
is ever written by hand. Money is counted in cents and written in dollars.
"""

from collections.abc import Callable
from fractions import Fraction
from math import gcd
from random import Random

from gnano.data.synthetic.cast import HERS, HIS, child
from gnano.data.synthetic.grammar import pool, table, tell

GOODS = table("""
one; many; low; high
pencil; pencils; 20; 90
notebook; notebooks; 120; 350
apple; apples; 30; 80
orange; oranges; 35; 95
loaf of bread; loaves of bread; 180; 420
bag of rice; bags of rice; 210; 560
paintbrush; paintbrushes; 150; 480
bar of soap; bars of soap; 90; 240
ball of wool; balls of wool; 220; 650
eraser; erasers; 40; 110
postcard; postcards; 50; 130
bunch of flowers; bunches of flowers; 300; 900
jar of honey; jars of honey; 350; 820
toy car; toy cars; 250; 750
candle; candles; 60; 210
""")
THINGS = """marbles;stamps;shells;buttons;stickers;walnuts;beads;cards;seeds;eggs;plums;cookies;
tiles;chairs;books;bricks;flowers;coins;pears;cups""".replace("\n", "").split(";")
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

pool("think", """
[First|To begin with], [let us|we] write down what we know.
[Let us|We can] solve this [step by step|in small steps|with care].
What do we know? [Let us read the problem again|Read the numbers first].
[Take your time|There is no hurry]: one step after another.
""")
pool("check", """
[We can check this|Let us check|To check]:
[Is this right|Can that be right]? [Work backwards|We check it the other way round]:
""")


def number(value: Fraction | int) -> str:
    """1200 -> '1,200'; 5/2 -> '2.5'; a value that has no short decimal stays a fraction."""
    value = Fraction(value)
    if value.denominator == 1:
        return f"{value.numerator:,}"
    if 100 % value.denominator == 0:
        return f"{float(value):,.2f}".rstrip("0")
    return f"{value.numerator}/{value.denominator}"


def equation(sign: str, *parts: int | Fraction) -> str:
    """'3 + 4 + 5 = 12': the parts joined by one sign, from left to right, and their result."""
    total = Fraction(parts[0])
    for part in parts[1:]:
        total = {"+": total + part, "-": total - part, "×": total * part}.get(
            sign, total / part if part else total
        )
    return f"{f' {sign} '.join(number(part) for part in parts)} = {number(total)}"


def dollars(cents: int) -> str:
    return f"${cents / 100:.2f}"


def money(sign: str, *cents: int) -> str:
    """'2.50 + 1.25 = 3.75', from amounts in cents."""
    total = sum(cents) if sign == "+" else cents[0] - sum(cents[1:])
    return f"{f' {sign} '.join(f'{c / 100:.2f}' for c in cents)} = {total / 100:.2f}"


def _pupil(dice: Random) -> dict[str, str]:
    name, girl = child(dice)
    other, _ = child(dice, (name,))
    return {"name": name, "other": other} | (HERS if girl else HIS)


def _shop(dice: Random) -> str:
    first, second = dice.sample(GOODS, 2)
    one = dice.randrange(int(first["low"]), int(first["high"]), 5)
    two = dice.randrange(int(second["low"]), int(second["high"]), 5)
    paid = next(note for note in (200, 500, 1_000, 2_000) if note > one + two)
    words = _pupil(dice) | {
        "first": first["one"], "second": second["one"],
        "one": dollars(one), "two": dollars(two), "paid": dollars(paid),
        "cost": money("+", one, two), "change": money("-", paid, one + two),
        "check": money("+", one + two, paid - one - two), "answer": dollars(paid - one - two),
    }
    return tell(dice, """
{Name} buys {a first} for {one} and {a second} for {two}. {He} pays with {paid}. How much change does {he} get?
| In the shop {a first} costs {one} and {a second} costs {two}. {Name} takes one of each and pays with {paid}. How
  much money does {he} get back?

? <think>
[First|Step one:] add the two prices: {cost}. [Then|Next|Step two:] take the sum away from the money paid: {change}.
| Together the {first} and the {second} cost {cost} dollars. From {paid} there is left {change}.
? <check> {check}. [It fits|That is just what was paid].
Answer: {name} gets {answer} back.
| Answer: the change is {answer}.
""", words)


def _many_of_one(dice: Random) -> str:
    goods = dice.choice(GOODS)
    price = dice.randrange(int(goods["low"]), int(goods["high"]), 5)
    count = dice.randint(3, 9)
    words = _pupil(dice) | goods | {
        "count": str(count), "price": dollars(price), "cents": str(price),
        "times": equation("×", count, price), "all": number(count * price),
        "answer": dollars(count * price),
    }
    return tell(dice, """
One {one} costs {price}. How much do {count} {many} cost?
| {Name} wants to buy {count} {many} at {price} each. How much will {he} pay?

? <think>
{price} is [the same as|equal to] {cents} cents. [So we multiply|Multiply]: {times}.
| [Count|Work] in cents, because whole numbers are easier: {times}.
{all} cents are {answer}, since a dollar has 100 cents.
Answer: {count} {many} cost {answer}.
""", words)


def _collection(dice: Random) -> str:
    a, b, c = (dice.randint(11, 480) for _ in range(3))
    lost = dice.randint(3, a + b - 5)
    words = _pupil(dice) | {
        "thing": dice.choice(THINGS), "a": str(a), "b": str(b), "c": str(c), "lost": str(lost),
        "sum": equation("+", a, b), "all": equation("+", a, b, c), "total": number(a + b + c),
        "rest": equation("-", a + b, lost), "left": number(a + b - lost),
        "tens": equation("+", a - a % 10, b - b % 10), "ones": equation("+", a % 10, b % 10),
    }
    return tell(dice, dice.choice(["""
{Name} has {a} {thing}. {other} has {b} {thing}, and the teacher has {c}. How many {thing} do they have together?

? <think>
[Add the first two numbers|Begin with the first two]: {sum}. [Now|Then] add the third: {all}.
| We add all three: {all}.
? The order does not matter [in a sum|when we add]; any order gives {total}.
Answer: together they have {total} {thing}.
""", """
{Name} had {a} {thing} and found {b} more. Then {he} gave {lost} of them to {other}. How many {thing} are left?

? <think>
[Split the numbers into tens and ones|Tens first, then ones]: {tens}, and {ones}. So {sum}.
| [At first|Before the gift] there were {sum} {thing}.
Now [take away|subtract] the {lost} {thing} that {name} gave away: {rest}.
Answer: {name} has {left} {thing} left.
"""]), words)


def _sharing(dice: Random) -> str:
    heads, each = dice.randint(3, 9), dice.randint(4, 40)
    rest = dice.randrange(heads)
    total = heads * each + rest
    words = _pupil(dice) | {
        "thing": dice.choice(THINGS), "heads": str(heads), "each": str(each), "total": str(total),
        "by": equation("÷", heads * each, heads), "back": equation("×", heads, each),
        "left": equation("-", total, heads * each), "rest": str(rest),
        "end": f"and {rest} {'is' if rest == 1 else 'are'} left over" if rest else "and none is left",
    }
    return tell(dice, """
{Name} shares {total} {thing} equally among {heads} friends. How many does each friend get? Is anything left over?
| There are {total} {thing} for {heads} children, and all should get the same number. How many does each one get?

? <think>
[The largest multiple|The biggest number in the table] of {heads} that fits into {total} [comes from|is] {back}.
| [How often does {heads} fit into {total}|Try the table of {heads}]? We find {back}.
[Turned round|As a division], {by}. What is left is {left}.
Answer: each one gets {each}, {end}.
""", words)


def _journey(dice: Random) -> str:
    mover = dice.choice(MOVERS)
    speed, hours = dice.randint(int(mover["low"]), int(mover["high"])), dice.randint(2, 9)
    words = {
        "mover": mover["mover"], "speed": str(speed), "hours": str(hours),
        "way": number(speed * hours), "times": equation("×", speed, hours),
        "by_speed": equation("÷", speed * hours, speed),
        "by_time": equation("÷", speed * hours, hours),
    }
    return tell(dice, dice.choice(["""
{A mover} travels at {speed} kilometres an hour for {hours} hours. How far does it get?

[Distance is speed times time|In each hour it covers {speed} kilometres]. So we multiply: {times}.
? <check> {by_time}, which is the speed.
Answer: the {mover} covers {way} kilometres in {hours} hours.
""", """
{A mover} covers {way} kilometres at a steady {speed} kilometres an hour. How long does the journey take?

? <think>
Time is distance divided by speed: {by_speed}. | How many times does {speed} fit into {way}? {by_speed}.
? <check> {times}. [That is the whole way|It fits].
Answer: the journey takes {hours} hours.
""", """
{A mover} needs {hours} hours for {way} kilometres. What is its average speed?

Speed is distance divided by time. We divide: {by_time}.
? <think>
? That means that it covers {speed} kilometres in one hour, [more or less|on average].
Answer: the average speed is {speed} kilometres an hour.
"""]), words)


def _part(dice: Random) -> str:
    under = dice.choice([2, 3, 4, 5, 6, 8, 10])
    over = dice.choice([n for n in range(1, under) if gcd(n, under) == 1])
    one = dice.randint(2, 60)
    words = _pupil(dice) | {
        "thing": dice.choice(THINGS), "part": f"{over}/{under}", "under": str(under),
        "over": str(over), "total": str(one * under), "one": str(one), "some": str(one * over),
        "by": equation("÷", one * under, under), "times": equation("×", one, over),
        "rest": equation("-", one * under, one * over), "left": str(one * (under - over)),
    }
    return tell(dice, """
{Name} has {total} {thing} and gives {part} of them to {other}. How many {thing} does {other} get?
| How many {thing} are {part} of {total} {thing}?

The lower number, {under}, says into how many equal parts we divide: {by}.
| [To find a fraction of a number|First], divide by the lower number: {by}. So one part is {one}.
The upper number, {over}, says how many parts we take: {times}.
? What remains is {rest}.
Answer: {part} of {total} {thing} is {some} {thing}.
""", words)


def _fractions(dice: Random) -> str:
    under = dice.choice([5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 20])
    a = dice.randint(1, under - 2)
    b = dice.randint(1, under - 1 - a)
    total = Fraction(a + b, under)
    shorter = total.denominator != under
    words = _pupil(dice) | {
        "a": f"{a}/{under}", "b": f"{b}/{under}", "under": str(under), "over": str(a + b),
        "food": dice.choice(["cake", "pizza", "loaf", "melon", "bar of chocolate", "pie", "cheese"]),
        "tops": equation("+", a, b), "sum": f"{a}/{under} + {b}/{under} = {a + b}/{under}",
        "answer": f"{total.numerator}/{total.denominator}",
        "short": f"Divide both by {(a + b) // total.numerator}, and it is shorter: "
                 f"{a + b}/{under} = {total.numerator}/{total.denominator}."
                 if shorter else f"No number but 1 divides both {a + b} and {under}, so it stays.",
    }
    return tell(dice, """
{Name} eats {a} of a {food}, and {other} eats {b} of it. What part of the {food} have they eaten?
| Of one {food}, {a} is gone in the morning and {b} in the evening. How much is gone in all?

[Both fractions have the same lower number|The lower numbers are equal], so the pieces are of the same size.
| [Each piece is one of {under}|The {food} was cut into {under} equal pieces].
Add the upper numbers: {tops}. [That is|So] {sum}.
{short}
Answer: {answer} of the {food}.
""", words)


def _ground(dice: Random) -> str:
    long, wide = dice.randint(4, 60), dice.randint(2, 30)
    words = _pupil(dice) | {
        "ground": dice.choice(GROUNDS), "long": str(long), "wide": str(wide),
        "area": equation("×", long, wide), "half": equation("+", long, wide),
        "round": equation("×", 2, long + wide), "squares": number(long * wide),
        "fence": str(2 * (long + wide)),
    }
    return tell(dice, """
A {ground} is {long} metres long and {wide} metres wide. What is its area, and how long is the way around it?
| {Name} measures a {ground}: {long} metres by {wide} metres. Find the area and the perimeter.

The area of a rectangle is length times width: {area} square metres.
| [Think of rows of square tiles|Imagine tiles of one metre]: {long} in a row and {wide} rows make {area}.
[The perimeter goes along all four sides|Around it we walk each side twice]. One length and one width are {half}, and {round}.
Answer: the area is {squares} square metres, and the perimeter is {fence} metres.
""", words)


def _mean(dice: Random) -> str:
    count = dice.choice([3, 4, 5])
    mean = dice.randint(8, 90)
    values = [mean + dice.randint(-7, 7) for _ in range(count - 1)]
    values.append(mean * count - sum(values))
    words = _pupil(dice) | {
        "count": str(count), "values": ", ".join(map(str, values)), "mean": str(mean),
        "sum": equation("+", *values), "by": equation("÷", mean * count, count),
        "high": str(max(values)), "low": str(min(values)),
        "what": dice.choice(["pages read", "birds counted", "minutes of practice", "points scored",
                             "letters delivered", "cups of tea sold"]),
    }
    return tell(dice, """
{Name} writes down the number of {what} on {count} days: {values}. What is the average?
| On {count} days these were the {what}: {values}. Find the average.

[The average is the sum divided by the count|To find an average, add everything and divide]. The sum is {sum}.
There are {count} numbers, so we divide by {count}: {by}.
? The average lies between the smallest number, {low}, and the largest, {high}, as it must.
Answer: the average is {mean}.
""", words)


def _percent(dice: Random) -> str:
    rate = dice.choice([5, 10, 15, 20, 25, 30, 40, 50, 60, 75])
    whole = dice.randint(1, 60) * 20
    part = whole * rate // 100
    goods = dice.choice(["coat", "bicycle", "lamp", "table", "tent", "radio", "guitar", "carpet"])
    words = _pupil(dice) | {
        "rate": str(rate), "whole": number(whole), "goods": goods, "part": number(part),
        "one": equation("÷", whole, 100), "times": equation("×", Fraction(whole, 100), rate),
        "less": equation("-", whole, part), "left": number(whole - part),
    }
    return tell(dice, """
A {goods} costs {whole} dollars. In the sale it is {rate} per cent cheaper. What is the new price?
| {Name} sees a {goods} for {whole} dollars, with {rate} per cent off. What must {he} pay?

Per cent means "of a hundred". One per cent of {whole} is {one}. [Therefore|So] {rate} per cent is {times}.
Now subtract the saving from the old price: {less}.
? <think_back>
Answer: the {goods} costs {left} dollars in the sale, a saving of {part} dollars.
""", words)


def _warmth(dice: Random) -> str:
    morning, rise = dice.randint(-9, 8), dice.randint(3, 17)
    fall = dice.randint(2, 15)
    noon, night = morning + rise, morning + rise - fall
    town = dice.choice(["village", "harbour", "valley", "mountain hut", "city", "farm", "lighthouse"])
    words = _pupil(dice) | {
        "town": town, "morning": str(morning), "rise": str(rise), "fall": str(fall),
        "up": equation("+", morning, rise), "down": equation("-", noon, fall), "night": str(night),
    }
    return tell(dice, """
In the morning it is {morning} degrees in the {town}. By noon the temperature rises by {rise} degrees, and in the
  evening it falls by {fall}. How warm is it then?
| A thermometer in the {town} shows {morning} degrees. It climbs by {rise} degrees and then drops by {fall}. What does
  it show [now|in the end]?

[Rising means adding|To rise is to add]: {up}. [Falling means taking away|To fall is to subtract]: {down}.
? A number with a minus sign lies below zero[, where water freezes|].
Answer: it is {night} degrees.
""", words)


def _savings(dice: Random) -> str:
    weekly, weeks, start = dice.randint(2, 15), dice.randint(3, 20), dice.randint(1, 40)
    goal = start + weekly * weeks
    wish = dice.choice(["skateboard", "telescope", "drum", "football", "fishing rod", "microscope",
                        "tent", "watch", "chess set", "camera"])
    words = _pupil(dice) | {
        "weekly": str(weekly), "weeks": str(weeks), "start": str(start), "goal": str(goal),
        "wish": wish, "gap": equation("-", goal, start),
        "by": equation("÷", goal - start, weekly), "back": equation("×", weeks, weekly),
    }
    return tell(dice, """
{Name} is saving for {a wish} that costs {goal} dollars. {He} already has {start} dollars and saves {weekly} more each
  week. How many weeks must {he} wait?
| {A wish} costs {goal} dollars. {Name} has {start} dollars and puts aside {weekly} dollars a week. When can {he} buy it?

? <think>
[First see how much is missing|What is still missing]: {gap} dollars.
[Each week brings {weekly} dollars|Now divide by the weekly sum], so {by}.
? <check> {back}, and that is the missing sum.
Answer: after {weeks} weeks {name} can buy the {wish}.
""", words)


def _pattern(dice: Random) -> str:
    start, step = dice.randint(1, 60), dice.randint(2, 25)
    shown = [start + step * n for n in range(4)]
    words = _pupil(dice) | {
        "shown": ", ".join(map(str, shown)), "step": str(step),
        "gap": equation("-", shown[1], shown[0]), "again": equation("-", shown[3], shown[2]),
        "next": equation("+", shown[3], step), "then": equation("+", shown[3] + step, step),
        "answer": f"{shown[3] + step} and {shown[3] + 2 * step}",
    }
    return tell(dice, """
Which two numbers come next? {shown}, ...
| {Name} writes a row of numbers: {shown}, ... What are the next two?

Look at the steps between the numbers: {gap}, and {again}. [Every step is {step}|The row grows by {step} each time].
So the next number is {next}, and the one after it is {then}.
Answer: {answer}.
""", words)


pool("think_back", """
A smaller price after a sale [makes sense|is what we expect].
[Remember|Note]: the saving is a part of the old price, [not of the new one|never of the new].
""")
pool("sum_title", """
Lesson: [Working With Numbers|Everyday Arithmetic|Sums in Daily Life|Numbers Around Us]
Worked [example|examples] for {name}
[Arithmetic practice|Practice page]: {name} and {other}
Mathematics with {name}
[A problem|Problems] to solve
""")

KINDS: tuple[Callable[[Random], str], ...] = (
    *(_shop, _many_of_one, _collection, _sharing, _journey, _part, _fractions),
    *(_ground, _mean, _percent, _warmth, _savings, _pattern),
)


def sums(dice: Random) -> str:
    """A page of one to three worked problems of different kinds."""
    heading = tell(dice, "<sum_title>", _pupil(dice))
    kinds = dice.sample(KINDS, dice.choice([1, 2, 2, 3]))
    problems = [kind(dice) for kind in kinds]
    if len(problems) > 1:
        label = dice.choice(["Problem", "Example", "Question"])
        problems = [f"{label} {n}. {text}" for n, text in enumerate(problems, start=1)]
    return "\n\n".join([heading, *problems])
