"""Texts with the grades that a reader gives them.

The thresholds of `text_checks` were chosen on `KNOWN`; the texts of `UNSEEN` were written later and
are kept unchanged.
"""

from typing import NamedTuple

from gnano.evals.text_checks import Expectation, Grade

STORY = Expectation(topic_stems=("fisher", "fish", "sea", "boat", "net", "village", "wave"))
CODE = Expectation(
    kind="code",
    topic_stems=("word", "count", "text", "split"),
    code_before='def count_words(text):\n    """How often does each word occur in the text?"""',
)
LIST = Expectation(
    kind="list", topic_stems=("towel", "sun", "swim", "hat", "water", "book", "beach")
)
FACT = Expectation(topic_stems=("water", "hydrogen", "oxygen", "element", "atom"))
ANSWER = Expectation(
    is_answer=True,
    topic_stems=("sky", "blue", "light", "scatter"),
    template_markers=("### Instruction:",),
)
CODE_ANSWER = Expectation(kind="code", is_answer=True, topic_stems=("even", "number", "return"))


class Case(NamedTuple):
    name: str
    grade: Grade
    text: str
    expected: Expectation
    finished: bool = False
    reason: str = ""  # beginning of the first reason


KNOWN = [
    Case(
        "a story up to the limit",
        "OK",
        " who mended his nets every evening while the gulls cried over the harbour. His wife had "
        "died many winters ago, and his only companion was a grey cat that slept in the bottom of "
        "the boat. One morning, before the sun had risen, he rowed further out than he had ever "
        "gone, for the fish had left the bay. There the water was so clear that he could see the "
        "wreck of a ship, and in its cabin a lamp was",
        STORY,
    ),
    Case(
        "a story that falls into a loop",
        "FAIL",
        " who lived by the sea. He went to the sea and looked at the sea. He went to the sea and "
        "looked at the sea. He went to the sea and looked at the sea. He went to the sea and "
        "looked at the sea. He went to the sea and looked at the sea. He went to the",
        STORY,
        reason="loop",
    ),
    Case(
        "a story that repeats itself without a loop at its end",
        "WEAK",
        " and the old man was very sad. The old man went to the sea and he saw a fish. The fish "
        "said that he was very sad. The old man went to the village and he saw a girl. The girl "
        "said that he was very sad. The old man went to the boat and he saw a bird, which said "
        "that he was very sad because the fish had gone away to another country.",
        STORY,
        reason="repeats",
    ),
    Case(
        "a function whose last line the limit truncated",
        "OK",
        "\n    counts = {}\n    for word in text.lower().split():\n"
        "        word = word.strip('.,;:!?')\n        if word:\n"
        "            counts[word] = counts.get(word, 0) + 1\n    return counts\n\n\n"
        "def most_common(text, n=10):\n"
        '    """The n words that occur most often, the most common first."""\n'
        "    counts = count_words(text)\n    return sorted(counts.items(), key=lambda pair: (-pa",
        CODE,
    ),
    Case(
        "English instead of Python",
        "FAIL",
        " The function counts the words of the text and returns them.\n\nIn this chapter we will "
        "see how a text is split into words, and how each word is counted. We begin with a text",
        CODE,
        reason="Python",
    ),
    Case(
        "Python that breaks off in the middle of a function",
        "WEAK",
        "\n    words = text.split()\n    counts = {}\n    for word in words:\n"
        "        counts[word] = counts.get(word, 0) + 1\n"
        "    for the word in words then\n        print word count\n    else if word not:\n"
        "        return the number\n    counts are the words\n    and each of them\n"
        "    is counted once\n    in the text",
        CODE,
        reason="Python: 4 of its 12 lines",
    ),
    Case(
        "a list with further items",
        "OK",
        " a hat with a wide brim\n- sun cream, factor 30 or more\n- two bottles of water\n"
        "- swimming trunks\n- a good book\n- sandals\n- a light jumper for the evening\n"
        "- snacks that do not melt\n- a bag for wet clothes\n- playing cards\n- an umb",
        LIST,
    ),
    Case("a fact, and the end", "OK", " hydrogen and oxygen.", FACT, finished=True),
    Case("only a period", "FAIL", ".\n", FACT, finished=True, reason="there is no letter"),
    Case(
        "random pieces of words",
        "FAIL",
        " odessos{{Kingelectric Bas()]additional hum.__lict ForumBinding Mal><Argent ouslysoft"
        "Key(orth 771seeingMurray idelines}}nostic clipmand rupt NavyConfig enz",
        FACT,
        reason="English: 0%",
    ),
    Case(
        "an answer that ends",
        "OK",
        "The sky is blue because air scatters light of short wavelengths more than light of long "
        "ones. When the sun's light passes through the air, the blue part of it is sent in all "
        "directions, and so it reaches our eyes from every side.",
        ANSWER,
        finished=True,
    ),
    Case(
        "an answer with the next question",
        "FAIL",
        "Because the air scatters blue light.\n\n### Instruction:\nWhy is the sea salty?",
        ANSWER,
        finished=True,
        reason="template",
    ),
]


UNSEEN = [
    Case(
        "an old-fashioned tale with long sentences and speech",
        "OK",
        ", whom the children called Grandfather Salt, for his beard was as white and as rough as "
        "the crust upon a drying net. “You have seen the whole ocean,” said the smallest of them, "
        "“and yet you come back to us every night; why is that?” He laughed, and laid down his "
        "pipe. “The ocean,” said he, “is a great lady, and does not care who visits her; but you, "
        "my dears, would notice it if my chair were empty.” And with that he",
        STORY,
    ),
    Case(
        "the same two sentences in turn, from the beginning",
        "FAIL",
        " who had a boat. The boat was old. The man was old. The boat was old. The man was old. "
        "The boat was old. The man was old. The boat was old. The man was old. The boat was old. "
        "The man was old. The boat was",
        STORY,
    ),
    Case(
        "a story that becomes an advertisement",
        "WEAK",
        " and he was happy. Buy now and save up to half of the price on all our kitchens! Our "
        "experienced team will be glad to help you with any questions about delivery, financing "
        "and installation. Call us today, or visit one of our many showrooms all over the "
        "country. Offer ends on Sunday. Terms and conditions apply to all the orders made online.",
        STORY,
    ),
    Case(
        "a function, then the text of a tutorial",
        "OK",
        "\n    words = text.lower().split()\n"
        "    return {word: words.count(word) for word in set(words)}"
        "\n\nThis is short, but slow: for every word the whole list is read again. The class "
        "Counter of the module collections does better: it goes through the text only once.",
        CODE,
    ),
    Case(
        "one comment after the other and no code",
        "WEAK",
        "\n    # TODO: split the text into words\n    # TODO: count the words\n"
        "    # TODO: return the counts\n    pass\n",
        CODE,
        finished=True,
    ),
    Case(
        "the same assignment on every line",
        "FAIL",
        "\n    counts = {}\n" + "    counts[word] = counts.get(word, 0) + 1\n" * 9,
        CODE,
    ),
    Case(
        "a list that repeats three items",
        "FAIL",
        " a hat\n- a towel\n- sunglasses\n- a hat\n- a towel\n- sunglasses\n- a hat\n- a towel\n"
        "- sunglasses\n- a hat\n- a towel\n- sunglasses\n- a hat\n- a towel\n- sungl",
        LIST,
    ),
    Case(
        "a list that turns into a letter about the sea",
        "WEAK",
        " and we will be there on Saturday, if the train is on time. I am looking forward to the "
        "beach, and to swimming with all of you before the summer is over. Please tell your mother "
        "that I have her book, and that I will bring it along with the money that I owe her.",
        LIST,
    ),
    Case(
        "invalid bytes between words",
        "FAIL",
        " hydrogen \ufffd\ufffd and\ufffd oxy\ufffd\x00gen, th\ufffd ele\ufffdments \x1b[0m of "
        "wat\ufffder are \ufffd\ufffd\ufffd found in the air and in all \ufffd living things",
        FACT,
    ),
    Case(
        "a fact in another language",
        "FAIL",
        " Wasserstoff und Sauerstoff, die sich bei einer Temperatur von mehreren hundert Grad "
        "verbinden; dabei wird sehr viel Wärme frei, weshalb man das Gemisch auch Knallgas nennt.",
        FACT,
    ),
    Case(
        "an answer with a list that the limit truncated",
        "WEAK",
        "There are two reasons why the sky looks blue to us:\n\n1. The gases of the air scatter "
        "short waves of light much more than long ones.\n2. Our eyes see violet, which is "
        "scattered even more, less well than blue. Besides, much of the violet light is absorbed "
        "in the upper",
        ANSWER,
    ),
    Case(
        "a function between two paragraphs of an answer",
        "OK",
        "Sure, here is a function that does it:\n\n```python\ndef is_even(number: int) -> bool:\n"
        "    return number % 2 == 0\n```\n\nIt divides the number by two and looks at the rest, "
        "which is zero for all even numbers, negative ones included.",
        CODE_ANSWER,
        finished=True,
    ),
]
# one of 24 texts, whose words of the topic are not among the stems (ocean instead of sea)
MISJUDGED: dict[str, Grade] = {"an old-fashioned tale with long sentences and speech": "WEAK"}
