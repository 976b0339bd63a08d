"""Good, looping, cut, empty and garbled texts get the verdict that a reader would give them.

The limits were settled on the texts of `KNOWN`; those of `UNSEEN` were written afterwards.
"""

from typing import NamedTuple

import pytest

from gnano.evals.judging import Grade, Verdict, Wanted, judge

STORY = Wanted(topic=("fisher", "fish", "sea", "boat", "net", "village", "wave"))
CODE = Wanted(
    kind="code",
    topic=("word", "count", "text", "split"),
    before='def count_words(text):\n    """How often does each word occur in the text?"""',
)
LIST = Wanted(kind="list", topic=("towel", "sun", "swim", "hat", "water", "book", "beach"))
FACT = Wanted(topic=("water", "hydrogen", "oxygen", "element", "atom"))
ANSWER = Wanted(answer=True, topic=("sky", "blue", "light", "scatter"), marks=("### Instruction:",))
CODE_ANSWER = Wanted(kind="code", answer=True, topic=("even", "number", "return"))


class Case(NamedTuple):
    name: str
    grade: Grade
    text: str
    wanted: Wanted
    ended: bool = False
    reason: str = ""  # the beginning of the first


KNOWN = [
    Case(
        "a story that goes on until the limit",
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
        "a story that says much again, though never word for word at its end",
        "WEAK",
        " and the old man was very sad. The old man went to the sea and he saw a fish. The fish "
        "said that he was very sad. The old man went to the village and he saw a girl. The girl "
        "said that he was very sad. The old man went to the boat and he saw a bird, which said "
        "that he was very sad because the fish had gone away to another country.",
        STORY,
        reason="repeats",
    ),
    Case(
        "a function whose last line the limit cut",
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
        "English where Python was begun",
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
        "a list that goes on",
        "OK",
        " a hat with a wide brim\n- sun cream, factor 30 or more\n- two bottles of water\n"
        "- swimming trunks\n- a good book\n- sandals\n- a light jumper for the evening\n"
        "- snacks that do not melt\n- a bag for wet clothes\n- playing cards\n- an umb",
        LIST,
    ),
    Case("a fact, and the end", "OK", " hydrogen and oxygen.", FACT, ended=True),
    Case("nothing but a full stop", "FAIL", ".\n", FACT, ended=True, reason="there is no letter"),
    Case(
        "pieces of words drawn at random",
        "FAIL",
        " odessos{{Kingelectric Bas()]additional hum.__lict ForumBinding Mal><Argent ouslysoft"
        "Key(orth 771seeingMurray idelines}}nostic clipmand rupt NavyConfig enz",
        FACT,
        reason="English: 0%",
    ),
    Case(
        "an answer that stays with its question and ends",
        "OK",
        "The sky is blue because air scatters light of short wavelengths more than light of long "
        "ones. When the sun's light passes through the air, the blue part of it is sent in all "
        "directions, and so it reaches our eyes from every side.",
        ANSWER,
        ended=True,
    ),
    Case(
        "an answer that asks itself the next question",
        "FAIL",
        "Because the air scatters blue light.\n\n### Instruction:\nWhy is the sea salty?",
        ANSWER,
        ended=True,
        reason="template",
    ),
]


def verdict(case: Case) -> Verdict:
    return judge(case.text, case.wanted, case.ended)


@pytest.mark.parametrize("case", KNOWN, ids=lambda case: case.name)
def test_a_text_gets_the_verdict_of_a_reader(case: Case) -> None:
    found = verdict(case)
    assert found.grade == case.grade, found
    assert found.reasons[0].startswith(case.reason), found
