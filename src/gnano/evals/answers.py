"""Comparison of a base and a tuned model on held-out questions.

                                before    after
held-out answers, nats a token   3.412    2.105
answers in the exact format         0%      94%
repetition                         61%       8%

exact format   something is said, end-of-text closes it within the limit, and nothing in it
               is the template's: no second question, no second answer's head
repetition     share of runs of four words that were said before in the same answer
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, zip_longest
from pathlib import Path
from statistics import mean
from typing import Any

from gnano.data.instructions.config import InstructionConfig
from gnano.data.instructions.conversations import Conversation
from gnano.data.instructions.encoding import encode_prompt
from gnano.data.instructions.gathering import gather_conversations
from gnano.data.instructions.templates import ALPACA, Template, template_of
from gnano.evals.judging import repetition
from gnano.infer.engine import Engine
from gnano.infer.sampling import Sampling
from gnano.utils.atomic_io import write_text
from gnano.utils.best_effort import best_effort
from gnano.utils.json_text import json_text

GREEDY = Sampling(temperature=0.0)
MARK = 6  # characters of a template's line, at least, that mean nothing else
SHOWN = 600  # characters of a question in the file that people read
Show = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    text: str
    stopped: bool  # by end-of-text; else the limit cut it off
    foreign: bool  # whether a part of the template is in it

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


@dataclass(frozen=True)
class BeforeAfter:
    questions: list[Conversation]
    before: Answers
    after: Answers
    losses: dict[str, tuple[float, float]]  # nats a token, before and after: all, then categories

    @property
    def rates(self) -> dict[str, tuple[float, float]]:
        """Before and after: exact format, repetition, share of answers that are the data's own."""
        if not self.questions:
            return {}
        expected = [question.turns[-1].content.strip() for question in self.questions]
        before, after = (
            mean(one.text == text for one, text in zip(given.answers, expected, strict=True))
            for given in (self.before, self.after)
        )
        return {
            "exact": (self.before.exact, self.after.exact),
            "repetition": (self.before.repetition, self.after.repetition),
            "same": (before, after),
        }

    def table(self) -> str:
        """Return losses and rates as text for a terminal."""
        rows = [("", "before", "after")]
        for name, (before, after) in self.losses.items():
            label = "held-out answers, nats a token" if name == "all" else f"  {name}"
            rows.append((label, f"{before:.3f}", f"{after:.3f}"))
        labels = {
            "exact": f"in the exact format, of {len(self.questions)} answers",
            "repetition": "repetition in them",
            "same": "word for word as in the data",
        }
        for name, (before, after) in self.rates.items():
            if name != "same" or before or after:  # of answers at length no two are alike
                rows.append((labels[name], f"{before:.0%}", f"{after:.0%}"))
        width = max(len(row[0]) for row in rows)
        return "\n".join(f"{label:<{width}}  {a:>7}  {b:>7}".rstrip() for label, a, b in rows)

    def as_dict(self) -> dict[str, Any]:
        return {
            "losses": self.losses,
            **{name: self.rates.get(name) for name in ("exact", "repetition", "same")},
            "answers": [
                {
                    "category": question.category,
                    "turns": [asdict(turn) for turn in question.turns],
                    "before": asdict(before),
                    "after": asdict(after),
                }
                for question, before, after in self.triples()
            ],
        }

    def markdown(self) -> str:
        """Return the answers side by side, for a person to read."""
        parts = ["# Answers before and after tuning\n", f"```\n{self.table()}\n```\n"]
        for number, (question, before, after) in enumerate(self.triples(), 1):
            quoted = "\n".join(f"> {line}" for line in _last_question(question).splitlines())
            parts.append(f"## {number}. {question.category}\n\n{quoted}\n")
            parts.append("| before | after | in the data |\n|---|---|---|")
            cells = (before.text, after.text, question.turns[-1].content)
            parts.append(f"| {' | '.join(map(_cell, cells))} |\n")
        return "\n".join(parts)

    def samples(self, count: int = 3) -> list[tuple[str, str, str]]:
        """Return title, question and answer of the first few, for the run's page."""
        found = []
        for question, before, after in self.triples()[:count]:
            prompt = f"{_last_question(question)}\n\n"
            found += [("before", prompt, before.text), ("after", prompt, after.text)]
        return found

    def triples(self) -> list[tuple[Conversation, Answer, Answer]]:
        """Return each question with its answer before and after."""
        return list(zip(self.questions, self.before.answers, self.after.answers, strict=True))


def compare_answers(
    config: InstructionConfig,
    base: Path,
    tuned: Path,
    run: Path,
    metrics: Sequence[dict[str, Any]],
    count: int,
    tokens: int,
    show: Show = lambda _: None,
) -> BeforeAfter:
    """Let base and tuned model answer; write `answers.md` and `answers.json` into the run.

    `metrics` are the rows of the run's log; `count` questions are answered, with `tokens` at most.
    """
    questions = choose_questions(gather_conversations(config).heldout, count)
    template = template_of(tuned) or ALPACA

    def answer_with(folder: Path, when: str) -> Answers:
        if not questions:
            return Answers(())
        progress = f"answers {when} tuning · {{}} of {len(questions)}"
        engine = Engine.load(folder)
        return answer(
            engine, template, questions, tokens, lambda done: show(progress.format(done + 1))
        )

    before, after = answer_with(base, "before"), answer_with(tuned, "after")
    found = BeforeAfter(questions, before, after, _first_and_last_losses(metrics))
    with best_effort("answers.md"):
        write_text(run / "answers.md", found.markdown())
    with best_effort("answers.json"):
        write_text(run / "answers.json", json_text(found.as_dict(), indent=1))
    return found


def answer(
    engine: Engine,
    template: Template,
    questions: Sequence[Conversation],
    tokens: int,
    show: Callable[[int], None] = lambda _: None,
) -> Answers:
    """Return the likeliest answer to each question's last turn, of at most `tokens` tokens.

    `show` is called with the number of questions done.
    """
    found = []
    for number, question in enumerate(questions):
        show(number)
        found.append(_answer(engine, template, question, tokens))
    return Answers(tuple(found))


def choose_questions(
    heldout: Mapping[str, Sequence[Conversation]], count: int
) -> list[Conversation]:
    """Return the first `count` held-out conversations, taken from the categories in turn."""
    turns = chain.from_iterable(zip_longest(*(heldout[name] for name in sorted(heldout))))
    return [question for question in turns if question is not None][:count]


def fit_prompt(ids: Sequence[int], context: int, tokens: int) -> Sequence[int]:
    """Drop the beginning of a prompt so that `tokens`, or half the context, are left to write."""
    return ids[-max(context - tokens, context // 2) :]


def marks_of(template: Template) -> tuple[str, ...]:
    """Return the first line of each part of a template, if long enough to mean nothing else."""
    parts = (getattr(template, field.name) for field in fields(template))
    lines = (part.partition("{")[0].strip().partition("\n")[0] for part in parts)
    return tuple(dict.fromkeys(line for line in lines if len(line) >= MARK))


def _answer(engine: Engine, template: Template, question: Conversation, tokens: int) -> Answer:
    context = engine.model.config.block_size
    # tuning cuts its questions alike
    ids = fit_prompt(
        encode_prompt(question.turns[:-1], template, engine.tokenizer), context, tokens
    )
    limit = min(tokens, context - len(ids))
    output = list(engine.token_ids(ids, limit, GREEDY))
    text = engine.tokenizer.decode(output).strip()
    return Answer(text, len(output) < limit, any(mark in text for mark in marks_of(template)))


def _first_and_last_losses(metrics: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    measured = [row["heldout"] for row in metrics if "losses" in row.get("heldout", {})]
    if not measured:
        return {}
    first, last = measured[0], measured[-1]
    ends = last["losses"]  # of other categories where the records have changed since
    parts = {name: (nats, ends[name]) for name, nats in first["losses"].items() if name in ends}
    return {"all": (first["loss"], last["loss"]), **(parts if len(parts) > 1 else {})}


def _last_question(question: Conversation) -> str:
    last = [turn for turn in question.turns if turn.role == "user"][-1]
    return f"{last.content}\n\n{last.context}".strip()[:SHOWN]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>") or "*nothing*"
