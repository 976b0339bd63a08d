"""Smoke test: a model writes twelve samples, each judged by the rules of `judge`.

    6 prompts ─▶ × 2 temperatures ─▶ 12 texts, side by side ─▶ `judge` ─▶ OK, WEAK or FAIL

A base model continues the beginnings of texts; a tuned one gets the same things as instructions,
in its template. The same seed gives the same samples.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gnano.data.corpus import Corpus
from gnano.data.instructions.conversations import Turn
from gnano.data.instructions.encoding import encode_prompt
from gnano.data.instructions.templates import Template, load_template, template_of
from gnano.evals.answers import fit_prompt, marks_of
from gnano.evals.copying import Copied, longest_copied
from gnano.evals.judging import Grade, Kind, Verdict, Wanted, judge
from gnano.infer.engine import Engine
from gnano.infer.loading import Loading
from gnano.infer.sampling import MOST, Sampling
from gnano.train.saving.folders import find_checkpoint
from gnano.utils.ranges import Range, check_number

LEAST = 16  # tokens; less of a text says too little
CONTINUATION, ANSWER = 120, 256  # tokens at most; an answer is to come to its end
GRADES: tuple[Grade, ...] = ("OK", "WEAK", "FAIL")
LOADING = Loading()
OTHER = "It was tuned with a template of its own, which `--format own` asks in."


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


@dataclass(frozen=True)
class Sample:
    name: str  # the prompt's
    temperature: float
    prompt: str
    text: str
    tokens: int
    ended: bool  # by itself; else the limit cut it off
    verdict: Verdict
    copied: Copied | None = None  # the longest span of it that stands in the training shards


@dataclass(frozen=True)
class Smoke:
    """The samples of a model and their verdicts."""

    samples: tuple[Sample, ...]
    note: str = ""  # advice for the user

    @property
    def counts(self) -> dict[Grade, int]:
        found = Counter(sample.verdict.grade for sample in self.samples)
        return {grade: found[grade] for grade in GRADES}

    @property
    def failed(self) -> bool:
        return self.counts["FAIL"] > 0

    def table(self) -> str:
        """Return a line for each sample, and the sum."""
        rows = ["prompt    temp  judged"]
        for sample in self.samples:
            first, *more = sample.verdict.reasons
            reason = f"{first} (and {len(more)} more)" if more else first
            rows.append(
                f"{sample.name:<9} {sample.temperature:<4}  {sample.verdict.grade:<4}  {reason}"
            )
        total = " · ".join(f"{count} {grade}" for grade, count in self.counts.items())
        return "\n".join([*rows, "", total])

    def texts(self) -> str:
        """Return the samples in full."""
        parts = []
        for sample in self.samples:
            head = f"── {sample.name} at {sample.temperature}: {sample.verdict.grade} "
            parts += [head.ljust(60, "─"), *(f"   {reason}" for reason in sample.verdict.reasons)]
            if sample.copied:
                span = sample.copied
                where = f"{span.source}, {span.shard}"
                parts.append(f"   {span.tokens} tokens in a row as in {where}: {span.text!r}")
            parts += ["", _escape_controls(sample.prompt + sample.text), ""]
        return "\n".join(parts).rstrip()

    def as_dict(self) -> dict[str, Any]:
        samples = [{**asdict(sample), **asdict(sample.verdict)} for sample in self.samples]
        for sample in samples:
            del sample["verdict"]
        return {**{grade.lower(): n for grade, n in self.counts.items()}, "samples": samples}


def smoke_test(
    checkpoint: Path,
    format: str = "text",
    temperatures: Sequence[float] = (0.7, 1.0),
    tokens: int | None = None,
    seed: int = 0,
    loading: Loading = LOADING,
    data: Path | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> Smoke:
    """Judge samples of a run's newest checkpoint, or of any Llama folder like it.

    `format` is text for a base model, own for the template that a model was tuned with, or a
    template's name or file. With `data`, a prepared folder, what is copied from its training shards
    is reported. `tokens` of a text at most are 120 by default, or 256 of an answer.
    Raises ValueError for impossible settings, OSError where there is no checkpoint.
    """
    if tokens is None:
        tokens = CONTINUATION if format == "text" else ANSWER
    check_number("tokens", tokens, Range(LEAST, MOST))  # fewer say too little to be judged
    if not temperatures:
        raise ValueError("There is no temperature: give one or more (--temperatures 0.7 1.0).")
    samplings = [Sampling(temperature=one, seed=seed) for one in temperatures]
    folder = find_checkpoint(checkpoint)
    template = _load_template(format, folder)
    own = template_of(folder)
    corpus = None if data is None else Corpus(data)
    engine = Engine.load(folder, **asdict(loading))
    total = len(samplings) * len(PROMPTS)
    samples: list[Sample] = []

    def show_progress(done: int) -> None:
        show(f"{len(samples) + done} of {total} samples")

    for sampling in samplings:
        samples += write_samples(engine, template, sampling, tokens, show_progress)
    if corpus is not None:
        copied = longest_copied(corpus, [sample.text for sample in samples], show)
        pairs = zip(samples, copied, strict=True)
        samples = [replace(sample, copied=span) for sample, span in pairs]
    samples.sort(key=lambda sample: [prompt.name for prompt in PROMPTS].index(sample.name))
    return Smoke(tuple(samples), OTHER if template and own and template != own else "")


def write_samples(
    engine: Engine,
    template: Template | None,
    sampling: Sampling,
    tokens: int,
    show: Callable[[int], None] = lambda _: None,
) -> list[Sample]:
    """Return a judged sample of each prompt, or of its instruction where there is a template."""
    context = engine.model.config.block_size
    prompts = []
    for prompt in PROMPTS:
        if template is None:
            ids: Sequence[int] = engine.prompt_ids(prompt.text)
        else:
            ids = encode_prompt((Turn("user", prompt.instruction),), template, engine.tokenizer)
        prompts.append(fit_prompt(ids, context, tokens))
    completions = engine.complete(prompts, tokens, sampling, show=show)
    samples = []
    for prompt, (found,) in zip(PROMPTS, completions, strict=True):
        ended = found.reason == "stop"
        verdict = judge(found.text, _expectation(prompt, template), ended)
        shown = prompt.text if template is None else f"{prompt.instruction}\n\n"
        where = prompt.name, sampling.temperature, shown
        samples.append(Sample(*where, found.text, len(found.ids), ended, verdict))
    return samples


def _load_template(format: str, folder: Path) -> Template | None:
    if format == "text":
        return None
    if format == "own":
        if found := template_of(folder):
            return found
        raise ValueError(
            f"{folder} has no template that can be read here; name one, as in --format alpaca."
        )
    try:
        return load_template(format)
    except ValueError:
        if Path(format).is_file():
            raise
        raise ValueError(
            f"No format is called {format!r}: there are text, own, alpaca, chatml, plain, and the "
            f"path of a template's file."
        ) from None


def _expectation(prompt: Prompt, template: Template | None) -> Wanted:
    topic = tuple(prompt.topic.split())
    if template is None:
        before = prompt.text if prompt.kind == "code" else ""
        return Wanted(kind=prompt.kind, topic=topic, before=before)
    marks = marks_of(template)
    return Wanted(kind=prompt.kind, topic=topic, answer=True, words=prompt.words, marks=marks)


def _escape_controls(text: str) -> str:
    """Escape control characters, which would act on the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
