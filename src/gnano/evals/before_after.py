"""What has tuning changed? The base and the tuned model side by side, on held-out questions.

                                before    after
held-out answers, nats a token   3.412    2.105
answers in the exact format         0%      94%
repetition                         61%       8%
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from gnano.data import InstructionConfig
from gnano.data.instructions import ALPACA, Conversation, gather_conversations, template_of
from gnano.evals.answers import Answer, Answers, answer, choose_questions
from gnano.infer import Engine
from gnano.utils.atomic_io import write_text
from gnano.utils.best_effort import best_effort
from gnano.utils.json_text import json_text

SHOWN = 600  # characters of a question in the file that people read
Show = Callable[[str], None]


@dataclass(frozen=True)
class BeforeAfter:
    questions: list[Conversation]
    before: Answers
    after: Answers
    losses: dict[str, tuple[float, float]]  # nats a token, before and after: all, then categories

    @property
    def same(self) -> tuple[float, float]:
        """Share of the answers that are the data's own, before and after."""
        expected = [question.turns[-1].content.strip() for question in self.questions]
        before, after = (
            mean(said.text == text for said, text in zip(given.answers, expected, strict=True))
            for given in (self.before, self.after)
        )
        return before, after

    def table(self) -> str:
        """For a terminal."""
        rows = [("", "before", "after")]
        for name, (before, after) in self.losses.items():
            what = "held-out answers, nats a token" if name == "all" else f"  {name}"
            rows.append((what, f"{before:.3f}", f"{after:.3f}"))
        if self.questions:
            counted = f"of {len(self.questions)} answers"
            exact = f"{self.before.exact:.0%}", f"{self.after.exact:.0%}"
            again = f"{self.before.repetition:.0%}", f"{self.after.repetition:.0%}"
            rows += [(f"in the exact format, {counted}", *exact), ("repetition in them", *again)]
            before, after = self.same
            if before or after:  # of answers at length no two are alike
                rows.append(("word for word as in the data", f"{before:.0%}", f"{after:.0%}"))
        width = max(len(row[0]) for row in rows)
        return "\n".join(f"{what:<{width}}  {a:>7}  {b:>7}".rstrip() for what, a, b in rows)

    def as_dict(self) -> dict[str, Any]:
        return {
            "losses": self.losses,
            "exact": [self.before.exact, self.after.exact] if self.questions else None,
            "repetition": (
                [self.before.repetition, self.after.repetition] if self.questions else None
            ),
            "same": self.same if self.questions else None,
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
        """Answers side by side, for a person to read."""
        parts = ["# Answers before and after tuning\n", f"```\n{self.table()}\n```\n"]
        for number, (question, before, after) in enumerate(self.triples(), 1):
            parts.append(f"## {number}. {question.category}\n\n{_quoted(_asked(question))}\n")
            parts.append("| before | after | in the data |\n|---|---|---|")
            cells = (before.text, after.text, question.turns[-1].content)
            parts.append(f"| {' | '.join(map(_cell, cells))} |\n")
        return "\n".join(parts)

    def samples(self, count: int = 3) -> list[tuple[str, str, str]]:
        """Title, question and answer, for the run's page."""
        found = []
        for question, before, after in self.triples()[:count]:
            asked = f"{_asked(question)}\n\n"
            found += [("before", asked, before.text), ("after", asked, after.text)]
        return found

    def triples(self) -> list[tuple[Conversation, Answer, Answer]]:
        """Each question with its answer before and after."""
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
    """Let base and tuned model answer; writes `answers.md` and `answers.json` into the run.

    `metrics` are the rows of the run's log, `count` and `tokens` the questions asked and the
    tokens of an answer at most.
    """
    questions = choose_questions(gather_conversations(config).heldout, count)
    template = template_of(tuned) or ALPACA

    def said_by(folder: Path, when: str) -> Answers:
        if not questions:
            return Answers(())
        whole = len(questions)
        return answer(
            Engine.load(folder),
            template,
            questions,
            tokens,
            lambda done: show(f"answers {when} tuning · {done + 1} of {whole}"),
        )

    before, after = said_by(base, "before"), said_by(tuned, "after")
    found = BeforeAfter(questions, before, after, _losses(metrics))
    with best_effort("answers.md"):
        write_text(run / "answers.md", found.markdown())
    with best_effort("answers.json"):
        write_text(run / "answers.json", json_text(found.as_dict(), indent=1))
    return found


def _losses(metrics: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Of the first and the last measurement in a run's log."""
    measured = [row["heldout"] for row in metrics if "losses" in row.get("heldout", {})]
    if not measured:
        return {}
    first, last = measured[0], measured[-1]
    ends = last["losses"]  # of other categories where the records have changed since
    parts = {name: (nats, ends[name]) for name, nats in first["losses"].items() if name in ends}
    return {"all": (first["loss"], last["loss"]), **(parts if len(parts) > 1 else {})}


def _asked(question: Conversation) -> str:
    last = [turn for turn in question.turns if turn.role == "user"][-1]
    return f"{last.content}\n\n{last.context}".strip()[:SHOWN]


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>") or "*nothing*"
