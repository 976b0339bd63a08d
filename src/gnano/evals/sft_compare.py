"""Comparison of a base model and its tuned version on held-out questions.

                                before    after
held-out answers, nats per token 3.412    2.105
answers in the exact format         0%      94%
repetition                         61%       8%

exact format   The answer is not empty, end-of-text closes it within the limit, and it contains
               no part of the template: no second question and no header of a second answer.
repetition     Share of runs of four words that occurred earlier in the same answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain, zip_longest
from pathlib import Path
from statistics import mean
from typing import Any

from gnano.config.data_config import InstructionConfig
from gnano.config.inference_config import SamplingParams
from gnano.data.sft.chat_template import ALPACA, AnyTemplate, ChatTemplate, read_template
from gnano.data.sft.conversations import Conversation
from gnano.data.sft.encoding import encode_prompt
from gnano.data.sft.record_loading import load_conversations
from gnano.evals.text_checks import repetition_rate
from gnano.infer.engine import Engine
from gnano.utils.files import atomic_write_text, dump_json
from gnano.utils.formatting import format_table
from gnano.utils.templates import render_template
from gnano.utils.terminal import best_effort

MIN_MARKER_LENGTH = 6  # characters; a shorter line of a template may occur in other text
MAX_QUESTION_LENGTH = 600  # characters of a question in answers.md
NUM_REPORTED = 3  # questions in the HTML report
RATES = {  # labels in the table
    "exact": "in the exact format, of {} answers",
    "repetition": "repetition in the answers",
    "same": "word for word as in the data",
}


@dataclass(frozen=True)
class Answer:
    """A generated answer."""

    text: str
    stopped: bool  # by end-of-text; False: truncated by the limit
    contains_template: bool

    @property
    def is_exact(self) -> bool:
        """Whether the answer is in the exact format."""
        return bool(self.text.strip()) and self.stopped and not self.contains_template


@dataclass(frozen=True)
class AnswerComparison:
    """Answers and losses before and after tuning."""

    questions: list[Conversation]
    before: tuple[Answer, ...]
    after: tuple[Answer, ...]
    losses: dict[str, tuple[float, float]]  # nats per token before and after: all, then categories

    @property
    def rates(self) -> dict[str, tuple[float, float]]:
        """Before and after: exact format, repetition, share of answers equal to the data's."""
        if not self.questions:
            return {}
        expected = [question.turns[-1].content.strip() for question in self.questions]

        def rates(answers: tuple[Answer, ...]) -> tuple[float, float, float]:
            return (
                mean(answer.is_exact for answer in answers),
                mean(repetition_rate(answer.text) for answer in answers),
                mean(one.text == text for one, text in zip(answers, expected, strict=True)),
            )

        pairs = zip(rates(self.before), rates(self.after), strict=True)
        return dict(zip(RATES, pairs, strict=True))

    def format_table(self) -> str:
        """Return losses and rates as text for a terminal."""
        rows = [("", "before", "after")]
        for name, (before, after) in self.losses.items():
            label = "held-out answers, nats per token" if name == "all" else f"  {name}"
            rows.append((label, f"{before:.3f}", f"{after:.3f}"))
        for name, (before, after) in self.rates.items():
            if name != "same" or before or after:  # long answers are never equal to the data's
                label = RATES[name].format(len(self.questions))
                rows.append((label, f"{before:.0%}", f"{after:.0%}"))
        return "\n".join(format_table(rows))

    def to_dict(self) -> dict[str, Any]:
        """Return losses, rates and answers for JSON."""
        answers = [
            {
                "category": question.category,
                "turns": [asdict(turn) for turn in question.turns],
                "before": asdict(before),
                "after": asdict(after),
            }
            for question, before, after in self.answer_pairs()
        ]
        return {"losses": self.losses, **dict.fromkeys(RATES), **self.rates, "answers": answers}

    def to_markdown(self) -> str:
        """Return the answers next to each other as Markdown."""

        def cell(text: str) -> str:
            return text.replace("|", "\\|").replace("\n", "<br>") or "*nothing*"

        template = Path(__file__).with_name("answers.md.j2")
        return render_template(template, it=self, last_question=_last_question, cell=cell)

    def report_samples(self) -> list[tuple[str, str, str]]:
        """Return title, question and answer of the first questions, for the HTML report."""
        samples = []
        for question, before, after in self.answer_pairs()[:NUM_REPORTED]:
            prompt = f"{_last_question(question)}\n\n"
            samples += [("before", prompt, before.text), ("after", prompt, after.text)]
        return samples

    def answer_pairs(self) -> list[tuple[Conversation, Answer, Answer]]:
        """Return each question with its answer before and after."""
        return list(zip(self.questions, self.before, self.after, strict=True))


def _last_question(question: Conversation) -> str:
    last = [turn for turn in question.turns if turn.role == "user"][-1]
    return f"{last.content}\n\n{last.context}".strip()[:MAX_QUESTION_LENGTH]


def compare_answers(
    config: InstructionConfig,
    base: Path,
    tuned: Path,
    run_dir: Path,
    metrics: Sequence[dict[str, Any]],
    count: int,
    max_tokens: int,
    on_progress: Callable[[str], None] = lambda _: None,
) -> AnswerComparison:
    """Generate answers of both models; write `answers.md` and `answers.json` into the run.

    `metrics` are the rows of the run's metrics log. `count` questions are answered, each with at
    most `max_tokens` tokens.
    """
    questions = select_questions(load_conversations(config).heldout, count)
    template = read_template(tuned) or ALPACA

    def answer_with(folder: Path, when: str) -> tuple[Answer, ...]:
        if not questions:
            return ()

        def show(done: int) -> None:
            on_progress(f"answers {when} tuning · {done + 1} of {len(questions)}")

        return generate_answers(Engine.load(folder), template, questions, max_tokens, show)

    before, after = answer_with(base, "before"), answer_with(tuned, "after")
    losses = {}
    measured = [row["heldout"] for row in metrics if "losses" in row.get("heldout", {})]
    if measured:
        first, last = measured[0], measured[-1]
        ends = last["losses"]  # has other categories if the records have changed since
        parts = {name: (nats, ends[name]) for name, nats in first["losses"].items() if name in ends}
        losses = {"all": (first["loss"], last["loss"]), **(parts if len(parts) > 1 else {})}
    comparison = AnswerComparison(questions, before, after, losses)
    with best_effort("answers.md"):
        atomic_write_text(run_dir / "answers.md", comparison.to_markdown())
    with best_effort("answers.json"):
        atomic_write_text(run_dir / "answers.json", dump_json(comparison.to_dict(), indent=1))
    return comparison


def generate_answers(
    engine: Engine,
    template: AnyTemplate,
    questions: Sequence[Conversation],
    max_tokens: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[Answer, ...]:
    """Return the greedy answer to each question's last turn, of at most `max_tokens` tokens.

    `on_progress` receives the number of questions finished.
    """
    block_size = engine.model.config.block_size
    markers = template_markers(template)
    greedy = SamplingParams(temperature=0.0)
    answers = []
    for number, question in enumerate(questions):
        on_progress(number)
        prompt = encode_prompt(question.turns[:-1], template, engine.tokenizer)
        ids = truncate_prompt(prompt, block_size, max_tokens)  # as in tuning
        limit = min(max_tokens, block_size - len(ids))
        output = engine.generate_batch([ids], limit, greedy)[0][0].token_ids
        text = engine.tokenizer.decode(output).strip()
        answers.append(Answer(text, len(output) < limit, any(mark in text for mark in markers)))
    return tuple(answers)


def select_questions(
    heldout: Mapping[str, Sequence[Conversation]], count: int
) -> list[Conversation]:
    """Return `count` held-out conversations, taken from the categories in turn."""
    turns = chain.from_iterable(zip_longest(*(heldout[name] for name in sorted(heldout))))
    return [question for question in turns if question is not None][:count]


def truncate_prompt(ids: Sequence[int], block_size: int, max_tokens: int) -> Sequence[int]:
    """Drop the beginning of a prompt so that `max_tokens`, or half the context, are free."""
    return ids[-max(block_size - max_tokens, block_size // 2) :]


def template_markers(template: AnyTemplate) -> tuple[str, ...]:
    """Return the first line of each part of a template that is long enough to be recognized."""
    if not isinstance(template, ChatTemplate):
        return ()
    parts = (getattr(template, field.name) for field in fields(template))
    lines = (part.partition("{")[0].strip().partition("\n")[0] for part in parts)
    return tuple(dict.fromkeys(line for line in lines if len(line) >= MIN_MARKER_LENGTH))
