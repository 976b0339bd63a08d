"""Does a model write at all sensibly? Twelve samples, each judged by rules that can be read.

    6 prompts ─▶ × 2 temperatures ─▶ 12 texts, side by side ─▶ `judge` ─▶ OK, WEAK or FAIL

A base model continues the beginnings of texts; a tuned one is asked the same things as
instructions, in its template. The same seed gives the same samples.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gnano.data import Corpus
from gnano.data.instructions import (
    ALPACA,
    Template,
    Turn,
    encode_prompt,
    load_template,
    template_of,
)
from gnano.evals.answers import marks_of
from gnano.evals.copying import Copied, longest_copied
from gnano.evals.judging import Grade, Verdict, Wanted, judge
from gnano.evals.smoke_prompts import PROMPTS, Prompt
from gnano.infer import Engine, Loading, Sampling
from gnano.infer.sampling import MOST
from gnano.train import find_checkpoint
from gnano.utils.ranges import Range, check_number

LEAST = 16  # tokens; less of a text says too little
CONTINUATION, ANSWER = 120, 256  # tokens at most; an answer is to come to its end
GRADES: tuple[Grade, ...] = ("OK", "WEAK", "FAIL")
LOADING = Loading()
OTHER = "It was tuned with a template of its own, which `--format own` asks in."


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
    """What a model wrote, and how it was judged."""

    samples: tuple[Sample, ...]
    note: str = ""  # what whoever asked should know

    @property
    def counts(self) -> dict[Grade, int]:
        found = Counter(sample.verdict.grade for sample in self.samples)
        return {grade: found[grade] for grade in GRADES}

    @property
    def failed(self) -> bool:
        return self.counts["FAIL"] > 0

    def table(self) -> str:
        """A line for each sample, and the sum."""
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
        """The samples, to be read."""
        parts = []
        for sample in self.samples:
            head = f"── {sample.name} at {sample.temperature}: {sample.verdict.grade} "
            parts += [head.ljust(60, "─"), *(f"   {reason}" for reason in sample.verdict.reasons)]
            if sample.copied:
                span = sample.copied
                where = f"{span.source}, {span.shard}"
                parts.append(f"   {span.tokens} tokens in a row as in {where}: {span.text!r}")
            parts += ["", _visible(sample.prompt + sample.text), ""]
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
    """Let a run's newest checkpoint, or any Llama folder like it, write, and judge what it says.

    `format` is text for a base model, own for the template that a model was tuned with, or a
    template's name or file. With `data`, a prepared folder, what is copied from its training shards
    is told. `tokens` of a text at most are 120 by default, or 256 of an answer.
    Raises ValueError for what cannot be asked so, OSError where there is no checkpoint.
    """
    if tokens is None:
        tokens = CONTINUATION if format == "text" else ANSWER
    check_number("tokens", tokens, Range(LEAST, MOST))  # fewer say too little to be judged
    if not temperatures:
        raise ValueError("There is no temperature: give one or more (--temperatures 0.7 1.0).")
    samplings = [Sampling(temperature=one, seed=seed) for one in temperatures]
    folder = find_checkpoint(checkpoint)
    template = _template(format, folder)
    own = template_of(folder)
    corpus = None if data is None else Corpus(data)
    engine = Engine.load(folder, **asdict(loading))
    whole = len(samplings) * len(PROMPTS)
    samples: list[Sample] = []

    def told(done: int) -> None:
        show(f"{len(samples) + done} of {whole} samples")

    for sampling in samplings:
        samples += write_samples(engine, template, sampling, tokens, told)
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
    """A judged sample for each of the prompts, or for its instruction where there is a template."""
    context = engine.model.config.block_size
    prompts = []
    for prompt in PROMPTS:
        if template is None:
            ids: Sequence[int] = engine.prompt_ids(prompt.text)
        else:
            ids = encode_prompt((Turn("user", prompt.instruction),), template, engine.tokenizer)
        # in a small context a long prompt loses its front, so that half is left to write in
        prompts.append(ids[-max(context - tokens, context // 2) :])
    samples = []
    for prompt, (said,) in zip(
        PROMPTS, engine.complete(prompts, tokens, sampling, show=show), strict=True
    ):
        ended = said.reason == "stop"
        verdict = judge(said.text, _wanted(prompt, template), ended)
        shown = prompt.text if template is None else f"{prompt.instruction}\n\n"
        samples.append(
            Sample(
                prompt.name,
                sampling.temperature,
                shown,
                said.text,
                len(said.ids),
                ended,
                verdict,
            )
        )
    return samples


def _template(format: str, folder: Path) -> Template | None:
    if format == "text":
        return None
    if format == "own":
        if found := template_of(folder):
            return found
        raise ValueError(
            f"{folder} has no template that can be read here; name one, as in --format alpaca."
        )
    if format == "alpaca":
        return ALPACA
    try:
        return load_template(format)
    except ValueError:
        if Path(format).is_file():
            raise
        raise ValueError(
            f"No format is called {format!r}: there are text, own, alpaca, chatml, plain, and the "
            f"path of a template's file."
        ) from None


def _wanted(prompt: Prompt, template: Template | None) -> Wanted:
    topic = tuple(prompt.topic.split())
    if template is None:
        before = prompt.text if prompt.kind == "code" else ""
        return Wanted(kind=prompt.kind, topic=topic, before=before)
    marks = marks_of(template)
    return Wanted(kind=prompt.kind, topic=topic, answer=True, words=prompt.words, marks=marks)


def _visible(text: str) -> str:
    """Control characters, of which a broken model is full, would act on the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
