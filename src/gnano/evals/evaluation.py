"""How good is it? One model, everything that was asked for, as a table and as JSON.

held-out text   ─▶ bits per byte a source
tasks           ─▶ accuracies, each with its error, beside that of a guess
training shards ─▶ which items were in them, and the score without those
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gnano.data import Corpus, DataConfig
from gnano.data.split import nothing_held_out
from gnano.evals.asked import ALL, Asked
from gnano.evals.bits import Bits, held_out, of_file
from gnano.evals.clean import overlap_line, with_overlap
from gnano.evals.gathering import Sheet, gather
from gnano.evals.items import TASKS
from gnano.evals.likelihood import log_likelihoods
from gnano.evals.scores import Likelihoods, Score, score
from gnano.evals.subject import Subject
from gnano.live import clock
from gnano.report import stages
from gnano.utils.atomic_io import write_text
from gnano.utils.json_text import json_text

Show = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    name: str
    folder: str
    parameters: int
    tokens: int | None  # that it was trained on
    bits: tuple[Bits, ...] = ()
    scores: tuple[Score, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)  # what was not measured, and why
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def bits_per_byte(self) -> float | None:
        """Over all sources' bytes."""
        whole = sum(part.bytes for part in self.bits)
        return sum(p.bits_per_byte * p.bytes for p in self.bits) / whole if whole else None

    def json(self) -> str:
        return json_text({**asdict(self), "bits_per_byte": self.bits_per_byte}, indent=1)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Evaluation":
        known = {k: v for k, v in content.items() if k != "bits_per_byte"}
        bits = tuple(Bits(**part) for part in known.pop("bits"))
        return cls(bits=bits, scores=tuple(map(Score.from_dict, known.pop("scores"))), **known)

    def table(self) -> str:
        """For a terminal."""
        trained = f" · {self.tokens / 1e6:,.1f} M tokens" if self.tokens else ""
        lines = [f"{self.name} · {self.parameters:,} parameters{trained}"]
        if self.bits:
            rows = [(part.source, part.bits_per_byte, part.bytes) for part in self.bits]
            if len(rows) > 1:
                whole = sum(part.bytes for part in self.bits)
                rows.append(("all", self.bits_per_byte or 0.0, whole))
            width = max(len("held-out text"), *(len(row[0]) for row in rows))
            lines += ["", f"{'held-out text':<{width}}  bits/byte      bytes"]
            lines += [f"{name:<{width}}  {bits:9.4f}  {size:9,}" for name, bits, size in rows]
        if self.scores:
            lines += ["", *_score_lines(self.scores)]
        lines += [f"left out: {what}: {why}" for what, why in self.left_out.items()]
        return "\n".join(lines)


def evaluate(
    subject: Subject, asked: Asked, show: Show = lambda _: None, note: Show = lambda _: None
) -> Evaluation:
    """Ask the model everything; `show` is told how far it is, `note` what is left out and why.

    What was named and cannot be had is a ValueError or OSError; of all tasks, those that cannot be
    reached are left out.
    """
    began = time.monotonic()
    left_out: dict[str, str] = {}
    sheets = _sheets(asked, left_out, show)
    corpus = _corpus(subject, asked, left_out)
    if asked.overlap and corpus is None:
        raise ValueError("Name the training data to look for the items in it: --data DIR.")
    if corpus and (unmeasured := nothing_held_out(corpus.folder, corpus.manifest)):
        left_out["held-out text"] = " ".join(unmeasured)
    for what, why in left_out.items():
        note(f"{what} left out: {why}")
    bits: list[Bits] = []
    rows = max(1, asked.batch // 4)  # of a whole context each
    if corpus is not None:
        bits += held_out(subject, corpus, asked.heldout_tokens, rows, show)
    bits += [of_file(subject, path, rows, show) for path in asked.text]
    answered = [(sheet, answers(subject, sheet, asked.batch, show)) for sheet in sheets]
    if asked.overlap and corpus is not None:
        scores = with_overlap(answered, corpus, show)
    else:
        scores = [score(sheet, found) for sheet, found in answered]
    kept = {"dtype": subject.loading.dtype, "quant": subject.loading.quant}
    settings = json.loads(json.dumps({**asdict(asked), "loading": kept}, default=str))
    return Evaluation(
        name=subject.name,
        folder=str(subject.folder),
        parameters=subject.parameters,
        tokens=subject.tokens,
        bits=tuple(bits),
        scores=tuple(scores),
        left_out=left_out,
        settings=settings,
        seconds=time.monotonic() - began,
    )


def answers(
    subject: Subject, sheet: Sheet, batch: int, show: Show = lambda _: None
) -> list[Likelihoods]:
    """What the model finds of each item's options."""
    show(f"{sheet.title}: reading {len(sheet.items):,} items")
    questions = subject.wording.questions(sheet.items)
    began = time.monotonic()

    def told(done: int) -> None:
        each = (time.monotonic() - began) / done if done else 0.0
        left = f" · {clock(each * (len(questions) - done))} left" if done else ""
        show(f"{sheet.title}: {done:,} of {len(questions):,} items{left}")

    found: list[Likelihoods] = list(log_likelihoods(subject.reader, questions, batch, told))
    return found


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f"{evaluation.json()}\n")


def default_path(evaluation: Evaluation) -> Path:
    """In the run that the checkpoint is of; of any other folder, below evals/."""
    folder = Path(evaluation.folder)
    by = "-by-harness" if "harness" in evaluation.settings else ""
    name = f"{folder.resolve().name}{by}.json"
    if folder.resolve().parent.name == "checkpoints":
        return folder.parent.parent / "evals" / name
    return Path("evals") / name


def _sheets(asked: Asked, left_out: dict[str, str], show: Show) -> list[Sheet]:
    common = asked.limit, asked.shots, asked.downloads, show
    names = [name for name in asked.names if name not in (ALL, "none")]
    sheets = gather(names, asked.files, *common)
    if ALL not in asked.names:
        return sheets
    there = {sheet.task for sheet in sheets}
    reason = ""
    for task in TASKS:
        if task in there:
            continue
        try:
            if reason:
                raise ConnectionError(reason)
            sheets += gather([task], (), *common)
        except (ValueError, OSError) as error:
            left_out[task] = str(error)
            reason = str(error) if isinstance(error, ConnectionError) else ""
    return sorted(sheets, key=lambda s: list(TASKS).index(s.task) if s.known else len(TASKS))


def _corpus(subject: Subject, asked: Asked, left_out: dict[str, str]) -> Corpus | None:
    """The data folder that was named, or that the model's run has learned from."""
    if asked.data is not None:
        return Corpus(asked.data)
    for stage in stages(subject.folder):
        if isinstance(stage.recipe.data, DataConfig):
            folder = Path(stage.recipe.data.folder)
            try:
                return Corpus(folder)
            except (ValueError, OSError) as error:
                left_out["held-out text"] = str(error)
    return None


def _score_lines(scores: Sequence[Score]) -> list[str]:
    width = max(len("task"), *(len(one.title) for one in scores))
    lines = [f"{'task':<{width}}   items  {'acc':<13}  {'acc_norm':<13}  chance"]
    for one in scores:
        norm = str(one.acc_norm) if one.acc_norm else ""
        chance = "" if one.chance is None else f"{one.chance:.3f}"
        more = f"  perplexity {one.perplexity:,.1f}" if one.perplexity is not None else ""
        more += f"  {one.shots}-shot" if one.shots else ""
        lines.append(
            f"{one.title:<{width}}  {one.items:6,}  {one.acc!s:<13}  {norm:<13}  "
            f"{chance:>6}{more}".rstrip()
        )
        if one.overlap:
            lines.append(f"{'':<{width}}  {overlap_line(one)}")
    return lines
