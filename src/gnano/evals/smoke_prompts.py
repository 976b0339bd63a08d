"""What is a model asked in a smoke test? Six things, as beginnings and as instructions."""

from dataclasses import dataclass

from gnano.evals.judging import Kind


@dataclass(frozen=True, kw_only=True)
class Prompt:
    name: str
    kind: Kind
    text: str  # for a base model to continue
    instruction: str  # for a tuned model to answer
    words: int  # of an answer, at least
    topic: str  # beginnings of words that a text about it has


# no text ends with white space, which in most tokenizers belongs to the word that follows
PROMPTS = (
    Prompt(
        name="story",
        kind="prose",
        text="Once upon a time, in a small village by the sea, there lived an old fisherman",
        instruction="Tell a story of three sentences about an old fisherman in a village by the "
        "sea.",
        words=20,
        topic="fish boat sea net ship sail shore wave water village catch caught ocean old",
    ),
    Prompt(
        name="function",
        kind="code",
        text='def count_words(text):\n    """Return a dictionary with the number of times each '
        'word occurs in the text."""',
        instruction="Write a Python function count_words(text) that returns a dictionary with the "
        "number of times each word occurs in the text.",
        words=4,
        topic="word text count dict split",
    ),
    Prompt(
        name="question",
        kind="prose",
        text="Question: Why do leaves change their color in autumn?\nAnswer:",
        instruction="Why do leaves change their color in autumn?",
        words=8,
        topic="leaf leaves tree color colour green yellow orange chloro pigment autumn sunlight",
    ),
    Prompt(
        name="essay",
        kind="prose",
        text="The invention of the printing press changed the world. Before it, books were copied "
        "by hand, and",
        instruction="Explain in three sentences how the invention of the printing press changed "
        "the world.",
        words=20,
        topic="print book press writ read copi copy paper text manuscript scribe page publish",
    ),
    Prompt(
        name="list",
        kind="list",
        text="Things to take along for a day at the beach:\n\n- a towel\n- sunglasses\n-",
        instruction="List six things to take along for a day at the beach.",
        words=6,
        topic="towel sun swim hat water beach sand umbrella book snack drink bag food ball shoe",
    ),
    Prompt(
        name="fact",
        kind="prose",
        text="Water is made of two elements,",
        instruction="Which two elements is water made of?",
        words=1,
        topic="water hydrogen oxygen element atom molecul",
    ),
)
