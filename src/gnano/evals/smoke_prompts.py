"""What is a model asked in a smoke test? Six things, as beginnings and as instructions."""

from dataclasses import dataclass

from gnano.evals.judging import Kind


@dataclass(frozen=True)
class Prompt:
    name: str
    kind: Kind
    text: str  # for a base model to continue
    instruction: str  # for a tuned model to answer
    words: int  # of an answer, at least
    topic: str  # beginnings of words that a text about it has


# none ends with white space, which in most tokenizers belongs to the word that follows
PROMPTS = (
    Prompt(
        name="story",
        "prose",
        "Once upon a time, in a small village by the sea, there lived an old fisherman",
        "Tell a story of three sentences about an old fisherman in a village by the sea.",
        20,
        "fish boat sea net ship sail shore wave water village catch caught ocean old",
    ),
    Prompt(
        name="function",
        "code",
        'def count_words(text):\n    """Return a dictionary with the number of times each word '
        'occurs in the text."""',
        "Write a Python function count_words(text) that returns a dictionary with the number of "
        "times each word occurs in the text.",
        4,
        "word text count dict split",
    ),
    Prompt(
        name="question",
        "prose",
        "Question: Why do leaves change their color in autumn?\nAnswer:",
        "Why do leaves change their color in autumn?",
        8,
        "leaf leaves tree color colour green yellow orange chloro pigment autumn sunlight",
    ),
    Prompt(
        name="essay",
        "prose",
        "The invention of the printing press changed the world. Before it, books were copied by "
        "hand, and",
        "Explain in three sentences how the invention of the printing press changed the world.",
        20,
        "print book press writ read copi copy paper text manuscript scribe page publish letter",
    ),
    Prompt(
        name="list",
        name="list",
        "Things to take along for a day at the beach:\n\n- a towel\n- sunglasses\n-",
        "List six things to take along for a day at the beach.",
        6,
        "towel sun swim hat water beach sand umbrella book snack drink bag food ball shoe chair",
    ),
    Prompt(
        name="fact",
        "prose",
        "Water is made of two elements,",
        "Which two elements is water made of?",
        1,
        "water hydrogen oxygen element atom molecul",
    ),
)
