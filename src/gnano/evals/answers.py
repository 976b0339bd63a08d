"""Does it answer, and does it stop? What a model says to questions that it was not tuned on.

exact format   something is said, end-of-text closes it within the limit, and nothing in it
               is the template's: no second question, no second answer's head
repetition     share of four words in a row that were said before in the same answer
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain, zip_longest
from statistics import mean

from gnano.data.instructions import Conversation, Template, encode_prompt
from gnano.infer import Engine, Sampling

GREEDY = Sampling(temperature=0.0)
MARK = 6  # characters of a template's line, at least, that mean nothing else
WORDS = 4  # in a row, that count as repeated


@dataclass(frozen=True)
class Answer:
    text: str
    stopped: bool  # by end-of-text; else the limit cut it off
    foreign: bool  # is a part of the template in it?

    @property
    def exact(self) -> bool:
        return bool(self.text.strip()) and self.stopped and not self.foreign


@dataclass(frozen=True)
class Answers:
    """What one model says to some questions."""

    answers: tuple[Answer, ...]

    @property
    def exact(self) -> float:
        """Share of the answers in the exact format."""
        return mean(answer.exact for answer in self.answers)

    @property
    def repetition(self) -> float:
        return mean(repetition(answer.text) for answer in self.answers)


def answer(
    engine: Engine,
    template: Template,
    questions: Sequence[Conversation],
    tokens: int,
    show: Callable[[int], None] = lambda _: None,
) -> Answers:
    """The likeliest answer to each question's last turn, of at most so many tokens.

    `show` is told how many are done.
    """
    given = []
    for number, question in enumerate(questions):
        show(number)
        given.append(_answer(engine, template, question, tokens))
    return Answers(tuple(given))


def choose_questions(
    heldout: Mapping[str, Sequence[Conversation]], count: int
) -> list[Conversation]:
    """So many of the held-out conversations, of the categories in turn; always the same ones."""
    turns = chain.from_iterable(zip_longest(*(heldout[name] for name in sorted(heldout))))
    return [question for question in turns if question is not None][:count]


def repetition(text: str) -> float:
    """Share of its runs of four words that are not the first of their kind; 0 of a short text."""
    words = text.split()
    runs = [tuple(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _answer(engine: Engine, template: Template, question: Conversation, tokens: int) -> Answer:
    context = engine.model.config.block_size
    # what was tuned on is cut alike, and half of the context is left for an answer at most
    asked = encode_prompt(question.turns[:-1], template, engine.tokenizer)
    ids = asked[-max(context - tokens, context // 2) :]
    limit = min(tokens, context - len(ids))
    said = list(engine.token_ids(ids, limit, GREEDY))
    text = engine.tokenizer.decode(said).strip()
    return Answer(text, len(said) < limit, any(mark in text for mark in marks_of(template)))


def marks_of(template: Template) -> tuple[str, ...]:
    """The first line of each part of a template, if it is long enough to mean nothing else."""
    parts = (getattr(template, field.name) for field in fields(template))
    lines = (part.partition("{")[0].strip().partition("\n")[0] for part in parts)
    return tuple(dict.fromkeys(line for line in lines if len(line) >= MARK))
