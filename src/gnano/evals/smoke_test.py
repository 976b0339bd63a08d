"""Smoke test: a model writes twelve texts, and each is graded.

    6 prompts ─▶ × 2 temperatures ─▶ 12 texts in batches ─▶ `grade_text` ─▶ OK, WEAK or FAIL

A base model continues the beginnings of texts in `smoke_test.toml`; a tuned model gets equivalent
instructions in its chat template. The same seed gives the same samples.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import MAX_COUNT, LoadConfig, SamplingParams
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.sft.chat_template import AnyTemplate, ChatTemplate, load_template, read_template
from gnano.data.sft.conversations import Turn
from gnano.data.sft.encoding import encode_prompt
from gnano.evals.memorization import CopiedSpan, find_longest_copies
from gnano.evals.sft_compare import template_markers, truncate_prompt
from gnano.evals.text_checks import SETTINGS, Expectation, Grade, TextKind, Verdict, grade_text
from gnano.infer.engine import Engine
from gnano.utils.formatting import format_table
from gnano.utils.templates import render_template
from gnano.utils.validation import Range, check_number

MIN_TOKENS = 16  # fewer are too short to be graded
MAX_CONTINUATION_TOKENS = 120
MAX_ANSWER_TOKENS = 256  # more, because an answer is expected to end
GRADES: tuple[Grade, ...] = ("OK", "WEAK", "FAIL")


@dataclass(frozen=True, kw_only=True)
class SmokePrompt:
    """A prompt in two forms, with the expected properties of the text."""

    name: str
    kind: TextKind
    text: str  # beginning of a text, for a base model
    instruction: str  # for a tuned model
    min_words: int  # of an answer
    topic_stems: str  # beginnings of words about the topic


PROMPTS = tuple(SmokePrompt(**content) for content in SETTINGS["prompts"])


@dataclass(frozen=True)
class SmokeSample:
    """A generated text and its verdict."""

    name: str  # of the prompt
    temperature: float
    prompt: str
    text: str
    tokens: int
    finished: bool  # False: truncated by the token limit
    verdict: Verdict
    copied: CopiedSpan | None = None  # the longest span that the training shards contain


@dataclass(frozen=True)
class SmokeReport:
    """The samples of a model and their verdicts."""

    samples: tuple[SmokeSample, ...]
    note: str = ""  # advice for the user

    @property
    def counts(self) -> dict[Grade, int]:
        """Number of samples of each grade."""
        counts = Counter(sample.verdict.grade for sample in self.samples)
        return {grade: counts[grade] for grade in GRADES}

    def format_table(self) -> str:
        """Return a line for each sample, and the totals."""
        rows = [("prompt", "temp", "grade", "reason")]
        for sample in self.samples:
            first, *more = sample.verdict.reasons
            reason = f"{first} (and {len(more)} more)" if more else first
            rows.append((sample.name, str(sample.temperature), sample.verdict.grade, reason))
        total = " · ".join(f"{count} {grade}" for grade, count in self.counts.items())
        return "\n".join([*format_table(rows, left=range(4)), "", total])

    def format_texts(self) -> str:
        """Return the samples in full."""

        def escape(text: str) -> str:  # control characters would affect the terminal
            return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)

        template = Path(__file__).with_name("smoke_texts.txt.j2")
        return render_template(template, samples=self.samples, escape=escape, repr=repr).rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Return counts and samples for JSON."""
        samples = [sample | sample.pop("verdict") for sample in map(asdict, self.samples)]
        return {**{grade.lower(): n for grade, n in self.counts.items()}, "samples": samples}


def run_smoke_test(
    checkpoint: Path,
    format: str = "text",
    temperatures: Sequence[float] = (0.7, 1.0),
    max_tokens: int | None = None,
    seed: int = 0,
    loading: LoadConfig | None = None,
    data: Path | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> SmokeReport:
    """Grade samples of a run's newest checkpoint, or of a Llama folder.

    `format` is "text" for a base model, "own" for the template the model was tuned with, or the
    name or file of a template. With `data`, a prepared folder, spans copied from its training
    shards are reported. `max_tokens` of each text defaults to 120, or 256 for an answer. Raises
    ValueError for invalid settings, OSError if there is no checkpoint.
    """
    if max_tokens is None:
        max_tokens = MAX_CONTINUATION_TOKENS if format == "text" else MAX_ANSWER_TOKENS
    check_number("tokens", max_tokens, Range(MIN_TOKENS, MAX_COUNT))
    if not temperatures:
        raise ValueError("There is no temperature: give one or more (--temperatures 0.7 1.0).")
    samplings = [SamplingParams(temperature=one, seed=seed) for one in temperatures]
    folder = find_checkpoint(checkpoint)
    own_template = read_template(folder)
    template = own_template if format == "own" else _load_template(format)
    if format == "own" and template is None:
        raise ValueError(f"{folder} has no readable template; name one, as in --format alpaca.")
    corpus = None if data is None else TokenizedCorpus(data)
    engine = Engine.load(folder, **asdict(loading or LoadConfig()))
    samples: list[SmokeSample] = []

    def show_progress(done: int) -> None:
        on_progress(f"{len(samples) + done} of {len(samplings) * len(PROMPTS)} samples")

    for sampling in samplings:
        samples += generate_samples(engine, template, sampling, max_tokens, show_progress)
    if corpus is not None:
        spans = find_longest_copies(corpus, [sample.text for sample in samples], on_progress)
        pairs = zip(samples, spans, strict=True)
        samples = [replace(sample, copied=span) for sample, span in pairs]
    samples.sort(key=lambda sample: [prompt.name for prompt in PROMPTS].index(sample.name))
    note = ""
    if template and own_template and template != own_template:
        note = "The model was tuned with its own template; use it with `--format own`."
    return SmokeReport(tuple(samples), note)


def _load_template(format: str) -> ChatTemplate | None:
    if format == "text":
        return None
    try:
        return load_template(format)
    except ValueError:
        if Path(format).is_file():
            raise
        raise ValueError(
            f"There is no format {format!r}: use text, own, alpaca, chatml, plain, or the path of "
            f"a template file."
        ) from None


def generate_samples(
    engine: Engine,
    template: AnyTemplate | None,
    sampling: SamplingParams,
    max_tokens: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[SmokeSample]:
    """Return a graded sample for each prompt, or for its instruction if there is a template."""
    prompts = []
    for prompt in PROMPTS:
        if template is None:
            ids: Sequence[int] = engine.encode_prompt(prompt.text)
        else:
            ids = encode_prompt((Turn("user", prompt.instruction),), template, engine.tokenizer)
        prompts.append(truncate_prompt(ids, engine.model.config.block_size, max_tokens))
    completions = engine.generate_batch(prompts, max_tokens, sampling, on_progress=on_progress)
    samples = []
    for prompt, (completion,) in zip(PROMPTS, completions, strict=True):
        finished = completion.finish_reason == "stop"
        expected = Expectation(
            kind=prompt.kind,
            topic_stems=tuple(prompt.topic_stems.split()),
            code_before=prompt.text if template is None else "",
            is_answer=template is not None,
            min_words=prompt.min_words,
            template_markers=template_markers(template) if template else (),
        )
        sample = SmokeSample(
            name=prompt.name,
            temperature=sampling.temperature,
            prompt=prompt.text if template is None else f"{prompt.instruction}\n\n",
            text=completion.text,
            tokens=len(completion.token_ids),
            finished=finished,
            verdict=grade_text(completion.text, expected, finished),
        )
        samples.append(sample)
    return samples
