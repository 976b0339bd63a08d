"""Problems about how many and how much: shopping, sharing, saving, averages, per cent."""

from fractions import Fraction
from random import Random

from gnano.data.synthetic.equations import THINGS, dollars, equation, money, number, pupil
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


pool(
    "think_back",
    """
A smaller price after a sale [makes sense|is what we expect].
[Remember|Note]: the saving is a part of the old price, [not of the new one|never of the new].
""",
)


def shop(dice: Random) -> str:
    first, second = dice.sample(GOODS, 2)
    one = dice.randrange(int(first["low"]), int(first["high"]), 5)
    two = dice.randrange(int(second["low"]), int(second["high"]), 5)
    paid = next(note for note in (200, 500, 1_000, 2_000) if note > one + two)
    words = pupil(dice) | {
        "first": first["one"],
        "second": second["one"],
        "one": dollars(one),
        "two": dollars(two),
        "paid": dollars(paid),
        "cost": money("+", one, two),
        "change": money("-", paid, one + two),
        "check": money("+", one + two, paid - one - two),
        "answer": dollars(paid - one - two),
    }
    return tell(
        dice,
        """
{Name} buys {a first} for {one} and {a second} for {two}. {He} pays with {paid}. How much change
  does {he} get?
| In the shop {a first} costs {one} and {a second} costs {two}. {Name} takes one of each and pays
  with {paid}. How
  much money does {he} get back?

? <think>
[First|Step one:] add the two prices: {cost}. [Then|Next|Step two:] take the sum away from the money
  paid: {change}.
| Together the {first} and the {second} cost {cost} dollars. From {paid} there is left {change}.
? <check> {check}. [It fits|That is just what was paid].
Answer: {name} gets {answer} back.
| Answer: the change is {answer}.
""",
        words,
    )


def many_of_one(dice: Random) -> str:
    goods = dice.choice(GOODS)
    price = dice.randrange(int(goods["low"]), int(goods["high"]), 5)
    count = dice.randint(3, 9)
    words = (
        pupil(dice)
        | goods
        | {
            "count": str(count),
            "price": dollars(price),
            "cents": str(price),
            "times": equation("×", count, price),
            "all": number(count * price),
            "answer": dollars(count * price),
        }
    )
    return tell(
        dice,
        """
One {one} costs {price}. How much do {count} {many} cost?
| {Name} wants to buy {count} {many} at {price} each. How much will {he} pay?

? <think>
{price} is [the same as|equal to] {cents} cents. [So we multiply|Multiply]: {times}.
| [Count|Work] in cents, because whole numbers are easier: {times}.
{all} cents are {answer}, since a dollar has 100 cents.
Answer: {count} {many} cost {answer}.
""",
        words,
    )


def collection(dice: Random) -> str:
    a, b, c = (dice.randint(11, 480) for _ in range(3))
    lost = dice.randint(3, a + b - 5)
    words = pupil(dice) | {
        "thing": dice.choice(THINGS),
        "a": str(a),
        "b": str(b),
        "c": str(c),
        "lost": str(lost),
        "sum": equation("+", a, b),
        "all": equation("+", a, b, c),
        "total": number(a + b + c),
        "rest": equation("-", a + b, lost),
        "left": number(a + b - lost),
        "tens": equation("+", a - a % 10, b - b % 10),
        "ones": equation("+", a % 10, b % 10),
    }
    return tell(
        dice,
        dice.choice(
            [
                """
{Name} has {a} {thing}. {other} has {b} {thing}, and the teacher has {c}. How many {thing} do they
  have together?

? <think>
[Add the first two numbers|Begin with the first two]: {sum}. [Now|Then] add the third: {all}.
| We add all three: {all}.
? The order does not matter [in a sum|when we add]; any order gives {total}.
Answer: together they have {total} {thing}.
""",
                """
{Name} had {a} {thing} and found {b} more. Then {he} gave {lost} of them to {other}. How many
  {thing} are left?

? <think>
[Split the numbers into tens and ones|Tens first, then ones]: {tens}, and {ones}. So {sum}.
| [At first|Before the gift] there were {sum} {thing}.
Now [take away|subtract] the {lost} {thing} that {name} gave away: {rest}.
Answer: {name} has {left} {thing} left.
""",
            ]
        ),
        words,
    )


def sharing(dice: Random) -> str:
    heads, each = dice.randint(3, 9), dice.randint(4, 40)
    rest = dice.randrange(heads)
    total = heads * each + rest
    words = pupil(dice) | {
        "thing": dice.choice(THINGS),
        "heads": str(heads),
        "each": str(each),
        "total": str(total),
        "by": equation("÷", heads * each, heads),
        "back": equation("×", heads, each),
        "left": equation("-", total, heads * each),
        "rest": str(rest),
        "end": f"and {rest} {'is' if rest == 1 else 'are'} left over"
        if rest
        else "and none is left",
    }
    return tell(
        dice,
        """
{Name} shares {total} {thing} equally among {heads} friends. How many does each friend get, and is
  anything left over?
| There are {total} {thing} for {heads} children, and all should get the same number. How many does
  each one get?

? <think>
[The largest multiple|The biggest number in the table] of {heads} that fits into {total} [comes
  from|is] {back}.
| [How often does {heads} fit into {total}|Try the table of {heads}]? We find {back}.
[Turned round|As a division], {by}. What is left is {left}.
Answer: each one gets {each}, {end}.
""",
        words,
    )


def mean(dice: Random) -> str:
    count = dice.choice([3, 4, 5])
    mean = dice.randint(30, 95)
    values = [mean + dice.randint(-7, 7) for _ in range(count - 1)]
    values.append(mean * count - sum(values))
    words = pupil(dice) | {
        "count": str(count),
        "values": ", ".join(map(str, values)),
        "mean": str(mean),
        "sum": equation("+", *values),
        "by": equation("÷", mean * count, count),
        "high": str(max(values)),
        "low": str(min(values)),
        "what": dice.choice(
            [
                "pages read",
                "birds counted",
                "minutes of practice",
                "points scored",
                "letters delivered",
                "cups of tea sold",
            ]
        ),
    }
    return tell(
        dice,
        """
{Name} writes down the number of {what} on {count} days: {values}. What is the average of the
  {what}?
| On {count} days these were the {what}: {values}. Find the average.

[The average is the sum divided by the count, and the|To find an average, add everything and divide;
  the] sum is {sum}.
There are {count} numbers, so we divide by {count}: {by}.
? The average lies between the smallest number, {low}, and the largest, {high}, as it must.
Answer: the average is {mean}.
""",
        words,
    )


def percent(dice: Random) -> str:
    rate = dice.choice([5, 10, 15, 20, 25, 30, 40, 50, 60, 75])
    whole = dice.randint(1, 60) * 20
    part = whole * rate // 100
    goods = dice.choice(["coat", "bicycle", "lamp", "table", "tent", "radio", "guitar", "carpet"])
    words = pupil(dice) | {
        "rate": str(rate),
        "whole": number(whole),
        "goods": goods,
        "part": number(part),
        "one": equation("÷", whole, 100),
        "times": equation("×", Fraction(whole, 100), rate),
        "less": equation("-", whole, part),
        "left": number(whole - part),
    }
    return tell(
        dice,
        """
A {goods} costs {whole} dollars. In the sale it is {rate} per cent cheaper. What is the new price?
| {Name} sees a {goods} for {whole} dollars, with {rate} per cent off. What must {he} pay?

Per cent means "of a hundred", so one per cent of {whole} is {one}. [Therefore|So] {rate} per cent
  is {times}.
Now subtract the saving from the old price: {less}.
? <think_back>
Answer: the {goods} costs {left} dollars in the sale, a saving of {part} dollars.
""",
        words,
    )


def savings(dice: Random) -> str:
    weekly, weeks, start = dice.randint(2, 15), dice.randint(3, 20), dice.randint(1, 40)
    goal = start + weekly * weeks
    wish = dice.choice(
        [
            "skateboard",
            "telescope",
            "drum",
            "football",
            "fishing rod",
            "microscope",
            "tent",
            "watch",
            "chess set",
            "camera",
        ]
    )
    words = pupil(dice) | {
        "weekly": str(weekly),
        "weeks": str(weeks),
        "start": str(start),
        "goal": str(goal),
        "wish": wish,
        "gap": equation("-", goal, start),
        "by": equation("÷", goal - start, weekly),
        "back": equation("×", weeks, weekly),
    }
    return tell(
        dice,
        """
{Name} is saving for {a wish} that costs {goal} dollars. {He} already has {start} dollars and saves
  {weekly} more each
  week. How many weeks must {he} wait?
| {A wish} costs {goal} dollars. {Name} has {start} dollars and puts aside {weekly} dollars a week.
  When can {he} buy it?

? <think>
[First see how much is missing|What is still missing]: {gap} dollars.
[Each week brings {weekly} dollars|Now divide by the weekly sum], so {by}.
? <check> {back}, and that is the missing sum.
Answer: after {weeks} weeks {name} can buy the {wish}.
""",
        words,
    )
