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

from gnano.checkpoint.format import find_checkpoint
from gnano.config.inference_config import MAX_COUNT, LoadConfig, SamplingParams
from gnano.data.sft.chat_template import ChatTemplate, encode_prompt, load_template, read_template
from gnano.data.sft.conversations import Turn
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals.memorization import CopiedSpan, find_longest_copies
from gnano.evals.sft_compare import template_markers, truncate_prompt
from gnano.evals.text_checks import Expectation, Grade, TextKind, Verdict, grade_text
from gnano.infer.engine import Engine
from gnano.utils.validation import Range, check_number

MIN_TOKENS = 16  # tokens; less of a text says too little
MAX_CONTINUATION_TOKENS, MAX_ANSWER_TOKENS = (
    120,
    256,
)  # tokens at most; an answer is to come to its end
GRADES: tuple[Grade, ...] = ("OK", "WEAK", "FAIL")
DEFAULT_LOADING = LoadConfig()
OWN_TEMPLATE_HINT = "It was tuned with a template of its own, which `--format own` asks in."


@dataclass(frozen=True, kw_only=True)
class SmokePrompt:
    name: str
    kind: TextKind
    text: str  # for a base model to continue
    instruction: str  # for a tuned model to answer
    min_words: int  # of an answer, at least
    topic_stems: str  # beginnings of words that a text about it has


# no text ends with white space, which in most tokenizers belongs to the word that follows
PROMPTS = (
    SmokePrompt(
        name="story",
        kind="prose",
        text="Once upon a time, in a small village by the sea, there lived an old fisherman",
        instruction="Tell a story of three sentences about an old fisherman in a village by the "
        "sea.",
        min_words=20,
        topic_stems="fish boat sea net ship sail shore wave water village catch caught ocean old",
    ),
    SmokePrompt(
        name="function",
        kind="code",
        text='def count_words(text):\n    """Return a dictionary with the number of times each '
        'word occurs in the text."""',
        instruction="Write a Python function count_words(text) that returns a dictionary with the "
        "number of times each word occurs in the text.",
        min_words=4,
        topic_stems="word text count dict split",
    ),
    SmokePrompt(
        name="question",
        kind="prose",
        text="Question: Why do leaves change their color in autumn?\nAnswer:",
        instruction="Why do leaves change their color in autumn?",
        min_words=8,
        topic_stems="leaf leaves tree color colour green yellow orange chloro pigment autumn sunlight",
    ),
    SmokePrompt(
        name="essay",
        kind="prose",
        text="The invention of the printing press changed the world. Before it, books were copied "
        "by hand, and",
        instruction="Explain in three sentences how the invention of the printing press changed "
        "the world.",
        min_words=20,
        topic_stems="print book press writ read copi copy paper text manuscript scribe page publish",
    ),
    SmokePrompt(
        name="list",
        kind="list",
        text="Things to take along for a day at the beach:\n\n- a towel\n- sunglasses\n-",
        instruction="List six things to take along for a day at the beach.",
        min_words=6,
        topic_stems="towel sun swim hat water beach sand umbrella book snack drink bag food ball shoe",
    ),
    SmokePrompt(
        name="fact",
        kind="prose",
        text="Water is made of two elements,",
        instruction="Which two elements is water made of?",
        min_words=1,
        topic_stems="water hydrogen oxygen element atom molecul",
    ),
)


@dataclass(frozen=True)
class SmokeSample:
    name: str  # the prompt's
    temperature: float
    prompt: str
    text: str
    tokens: int
    finished: bool  # by itself; else the limit cut it off
    verdict: Verdict
    copied: CopiedSpan | None = None  # the longest span of it that stands in the training shards


@dataclass(frozen=True)
class SmokeReport:
    """The samples of a model and their verdicts."""

    samples: tuple[SmokeSample, ...]
    note: str = ""  # advice for the user

    @property
    def counts(self) -> dict[Grade, int]:
        found = Counter(sample.verdict.grade for sample in self.samples)
        return {grade: found[grade] for grade in GRADES}

    @property
    def has_failures(self) -> bool:
        return self.counts["FAIL"] > 0

    def format_table(self) -> str:
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

    def format_texts(self) -> str:
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

    def to_dict(self) -> dict[str, Any]:
        samples = [{**asdict(sample), **asdict(sample.verdict)} for sample in self.samples]
        for sample in samples:
            del sample["verdict"]
        return {**{grade.lower(): n for grade, n in self.counts.items()}, "samples": samples}


def run_smoke_test(
    checkpoint: Path,
    format: str = "text",
    temperatures: Sequence[float] = (0.7, 1.0),
    max_tokens: int | None = None,
    seed: int = 0,
    loading: LoadConfig = DEFAULT_LOADING,
    data: Path | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> SmokeReport:
    """Judge samples of a run's newest checkpoint, or of any Llama folder like it.

    `format` is text for a base model, own for the template that a model was tuned with, or a
    template's name or file. With `data`, a prepared folder, what is copied from its training shards
    is reported. `tokens` of a text at most are 120 by default, or 256 of an answer.
    Raises ValueError for impossible settings, OSError where there is no checkpoint.
    """
    if max_tokens is None:
        max_tokens = MAX_CONTINUATION_TOKENS if format == "text" else MAX_ANSWER_TOKENS
    check_number(
        "tokens", max_tokens, Range(MIN_TOKENS, MAX_COUNT)
    )  # fewer say too little to be judged
    if not temperatures:
        raise ValueError("There is no temperature: give one or more (--temperatures 0.7 1.0).")
    samplings = [SamplingParams(temperature=one, seed=seed) for one in temperatures]
    folder = find_checkpoint(checkpoint)
    template = _load_template(format, folder)
    own = read_template(folder)
    corpus = None if data is None else TokenizedCorpus(data)
    engine = Engine.load(folder, **asdict(loading))
    total = len(samplings) * len(PROMPTS)
    samples: list[SmokeSample] = []

    def show_progress(done: int) -> None:
        on_progress(f"{len(samples) + done} of {total} samples")

    for sampling in samplings:
        samples += generate_samples(engine, template, sampling, max_tokens, show_progress)
    if corpus is not None:
        copied = find_longest_copies(corpus, [sample.text for sample in samples], on_progress)
        pairs = zip(samples, copied, strict=True)
        samples = [replace(sample, copied=span) for sample, span in pairs]
    samples.sort(key=lambda sample: [prompt.name for prompt in PROMPTS].index(sample.name))
    return SmokeReport(
        tuple(samples), OWN_TEMPLATE_HINT if template and own and template != own else ""
    )


def generate_samples(
    engine: Engine,
    template: ChatTemplate | None,
    sampling: SamplingParams,
    max_tokens: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[SmokeSample]:
    """Return a judged sample of each prompt, or of its instruction where there is a template."""
    context = engine.model.config.block_size
    prompts = []
    for prompt in PROMPTS:
        if template is None:
            ids: Sequence[int] = engine.encode_prompt(prompt.text)
        else:
            ids = encode_prompt((Turn("user", prompt.instruction),), template, engine.tokenizer)
        prompts.append(truncate_prompt(ids, context, max_tokens))
    completions = engine.generate_batch(prompts, max_tokens, sampling, on_progress=on_progress)
    samples = []
    for prompt, (found,) in zip(PROMPTS, completions, strict=True):
        ended = found.finish_reason == "stop"
        verdict = grade_text(found.text, _build_expectation(prompt, template), ended)
        shown = prompt.text if template is None else f"{prompt.instruction}\n\n"
        where = prompt.name, sampling.temperature, shown
        samples.append(SmokeSample(*where, found.text, len(found.token_ids), ended, verdict))
    return samples


def _load_template(format: str, folder: Path) -> ChatTemplate | None:
    if format == "text":
        return None
    if format == "own":
        if found := read_template(folder):
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


def _build_expectation(prompt: SmokePrompt, template: ChatTemplate | None) -> Expectation:
    topic = tuple(prompt.topic_stems.split())
    if template is None:
        before = prompt.text if prompt.kind == "code" else ""
        return Expectation(kind=prompt.kind, topic_stems=topic, code_before=before)
    marks = template_markers(template)
    return Expectation(
        kind=prompt.kind,
        topic_stems=topic,
        is_answer=True,
        min_words=prompt.min_words,
        template_markers=marks,
    )


def _escape_controls(text: str) -> str:
    """Escape control characters, which would act on the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
