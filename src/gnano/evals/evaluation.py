"""Evaluation of one model: bits per byte, accuracy on tasks, overlap of those with training data.

    held-out text   ─▶ bits per byte of each source
    tasks           ─▶ accuracies with their errors, beside that of a guess
    training shards ─▶ which items they contain, and the score without those

acc        the likeliest answer is the right one; of a task of one answer: each of its tokens
           was the likeliest
acc_norm   the same by log-likelihood per character, so that long answers are not worse off
±          the standard error: what another sample of as many items would differ by
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gnano.data.corpus import Corpus
from gnano.data.ngrams import NGrams
from gnano.data.sources import DataConfig
from gnano.data.split import nothing_held_out
from gnano.evals.asked import ALL, Asked
from gnano.evals.bits import Bits, held_out, mean_bits, of_file
from gnano.evals.contamination import Overlap, find_contamination
from gnano.evals.gathering import TASKS, Item, Sheet, gather
from gnano.evals.likelihood import log_likelihoods
from gnano.evals.subject import Subject
from gnano.infer.loading import Loading
from gnano.live import clock
from gnano.report.lineage import stages
from gnano.utils.atomic_io import write_text
from gnano.utils.json_text import json_text

Likelihoods = Sequence[tuple[float, bool]]  # of an item's options: nats, each token the likeliest?
Answered = tuple[Sheet, Sequence[Likelihoods]]  # a task's items, and what a model found of each
Show = Callable[[str], None]


@dataclass(frozen=True)
class Accuracy:
    value: float
    error: float  # standard error; 0 of a single item

    @classmethod
    def share(cls, right: float, items: int) -> "Accuracy":
        mean = right / items
        return cls(mean, math.sqrt(mean * (1 - mean) / max(1, items - 1)))

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.error:.3f}"


@dataclass(frozen=True, kw_only=True)
class Score:
    task: str
    title: str
    items: int
    shots: int
    chance: float | None  # accuracy of a guess; None where that is unknown
    acc: Accuracy
    acc_norm: Accuracy | None  # None where length says nothing
    perplexity: float | None = None  # per answer, of a task of one answer
    overlap: dict[str, Any] | None = None  # with the training data, if that was searched

    @property
    def main(self) -> Accuracy:
        return self.acc_norm or self.acc

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Score":
        norm = content["acc_norm"]
        accuracies = {"acc": Accuracy(**content["acc"]), "acc_norm": norm and Accuracy(**norm)}
        return cls(**{**content, **accuracies})


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
        """Mean over all sources' bytes."""
        return mean_bits(self.bits) if self.bits else None

    def json(self) -> str:
        return json_text({**asdict(self), "bits_per_byte": self.bits_per_byte}, indent=1)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Evaluation":
        known = {k: v for k, v in content.items() if k != "bits_per_byte"}
        bits = tuple(Bits(**part) for part in known.pop("bits"))
        return cls(bits=bits, scores=tuple(map(Score.from_dict, known.pop("scores"))), **known)

    def table(self) -> str:
        """Return the evaluation as text for a terminal."""
        trained = f" · {self.tokens / 1e6:,.1f} M tokens" if self.tokens else ""
        lines = [f"{self.name} · {self.parameters:,} parameters{trained}"]
        if self.bits:
            rows = [(part.source, part.bits_per_byte, part.bytes) for part in self.bits]
            if len(rows) > 1:
                rows.append(("all", mean_bits(self.bits), sum(part.bytes for part in self.bits)))
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
    """Measure everything; `show` gets the progress, `note` what is left out and why.

    What was named and is not available is a ValueError or OSError; of all tasks, those that cannot
    be reached are left out.
    """
    began = time.monotonic()
    left_out: dict[str, str] = {}
    sheets = _load_tasks(asked, left_out, show)
    corpus = _open_corpus(subject, asked, left_out)
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
    answered = [(sheet, _score_items(subject, sheet, asked.batch, show)) for sheet in sheets]
    if asked.overlap and corpus is not None:
        scores = with_overlap(answered, corpus, show)
    else:
        scores = [score(sheet, found) for sheet, found in answered]
    return Evaluation(
        name=subject.name,
        folder=str(subject.folder),
        parameters=subject.parameters,
        tokens=subject.tokens,
        bits=tuple(bits),
        scores=tuple(scores),
        left_out=left_out,
        settings=settings_of(asked, subject.loading),
        seconds=time.monotonic() - began,
    )


def settings_of(asked: Asked, loading: Loading) -> dict[str, Any]:
    """Return the settings as JSON holds them."""
    kept = {"dtype": loading.dtype, "quant": loading.quant}
    settings: dict[str, Any] = json.loads(
        json.dumps({**asdict(asked), "loading": kept}, default=str)
    )
    return settings


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f"{evaluation.json()}\n")


def score(sheet: Sheet, found: Sequence[Likelihoods]) -> Score:
    """Return the score of a task from the likelihoods of each item's options."""
    each = [right(item, nats) for item, nats in zip(sheet.items, found, strict=True)]
    count = len(sheet.items)
    single = all(len(item.options) == 1 for item in sheet.items)
    nats = -sum(options[0][0] for options in found) / len(found)
    guess = [1 / len(i.options) if len(i.options) > 1 else 0.0 for i in sheet.items]
    return Score(
        task=sheet.task,
        title=sheet.title,
        items=count,
        shots=sheet.shots,
        chance=sum(guess) / len(guess),
        acc=Accuracy.share(sum(plain for plain, _ in each), count),
        acc_norm=Accuracy.share(sum(n for _, n in each), count) if sheet.normalised else None,
        perplexity=math.exp(min(nats, 700.0)) if single else None,
    )


def right(item: Item, found: Likelihoods) -> tuple[bool, bool]:
    """Tell whether the right answer wins: by log-likelihood, and by that per character."""
    if len(found) == 1:
        return found[0][1], found[0][1]
    nats = [one for one, _ in found]
    lengths = [len(answer) for answer in item.answers] * (len(nats) // len(item.answers))
    each = [one / length for one, length in zip(nats, lengths, strict=True)]
    # `index` takes the first of equals
    return nats.index(max(nats)) == item.gold, each.index(max(each)) == item.gold


def with_overlap(
    answered: Sequence[Answered], corpus: Corpus, show: Show = lambda _: None
) -> list[Score]:
    """Return the score of each task, with how many of its items the training shards contain.

    The shards are read once, for the items of all tasks.
    """
    items = [item.text for sheet, _ in answered for item in sheet.items]
    overlap = find_contamination(corpus, items, lambda text: show(f"training shards: {text}"))
    scores, first = [], 0
    for sheet, found in answered:
        scores.append(_score_with_overlap(sheet, found, overlap, first))
        first += len(sheet.items)
    return scores


def _score_with_overlap(
    sheet: Sheet, found: Sequence[Likelihoods], overlap: Overlap, first: int
) -> Score:
    """Score a task whose items are those from number `first` on in `overlap`."""
    own = range(first, first + len(sheet.items))
    seen = {number - first for number in overlap.found if number in own}
    rest = [number for number in range(len(sheet.items)) if number not in seen]
    examples = [e for e in overlap.examples if e.item in own]
    content: dict[str, Any] = {
        "checked": len(NGrams([item.text for item in sheet.items]).items),
        "found": len(seen),
        "examples": [asdict(replace(one, item=one.item - first)) for one in examples],
        "clean": None,
    }
    if seen and rest:
        part = replace(sheet, items=tuple(sheet.items[number] for number in rest))
        content["clean"] = asdict(score(part, [found[number] for number in rest]))
    return replace(score(sheet, found), overlap=content)


def overlap_line(one: Score) -> str:
    """Return the overlap of a score as a line of text."""
    assert one.overlap is not None
    found, checked = one.overlap["found"], one.overlap["checked"]
    line = f"{found:,} of its {checked:,} items of 13 words or more stand in the training shards"
    if clean := one.overlap["clean"]:
        name = "acc_norm" if one.acc_norm else "acc"
        line += f"; {name} {Score.from_dict(clean).main} without them"
    return line


def _score_items(subject: Subject, sheet: Sheet, batch: int, show: Show) -> list[Likelihoods]:
    show(f"{sheet.title}: reading {len(sheet.items):,} items")
    questions = subject.wording.questions(sheet.items)
    began = time.monotonic()

    def show_progress(done: int) -> None:
        each = (time.monotonic() - began) / done if done else 0.0
        left = f" · {clock(each * (len(questions) - done))} left" if done else ""
        show(f"{sheet.title}: {done:,} of {len(questions):,} items{left}")

    return [*log_likelihoods(subject.reader, questions, batch, show_progress)]


def _load_tasks(asked: Asked, left_out: dict[str, str], show: Show) -> list[Sheet]:
    common = asked.limit, asked.shots, asked.downloads, show
    names = [name for name in asked.names if name not in (ALL, "none")]
    sheets = gather(names, asked.files, *common)
    if ALL not in asked.names:
        return sheets
    offline = ""
    loaded = {sheet.task for sheet in sheets}
    for task in [name for name in TASKS if name not in loaded]:
        try:
            if offline:
                raise ConnectionError(offline)
            sheets += gather([task], (), *common)
        except (ValueError, OSError) as error:
            left_out[task] = str(error)
            offline = str(error) if isinstance(error, ConnectionError) else ""
    return sorted(sheets, key=lambda s: list(TASKS).index(s.task) if s.known else len(TASKS))


def _open_corpus(subject: Subject, asked: Asked, left_out: dict[str, str]) -> Corpus | None:
    """Open the data folder that was named, or that of the model's own run."""
    if asked.data is not None:
        return Corpus(asked.data)
    for stage in stages(subject.folder):
        if isinstance(stage.recipe.data, DataConfig):
            try:
                return Corpus(Path(stage.recipe.data.folder))
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
