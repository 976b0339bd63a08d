"""The whole way through the house, small: text, tokenizer, shards, training, samples.

    gather and tokenize ─▶ pretrain ─▶ measure against xz ─▶ plot ─▶ let it write
                                                              ─▶ tune ─▶ let it answer

Every part is the real one that a large run uses; only the recipe is small. Each part keeps
what it finished, so the same command goes on wherever the last one stopped.
"""

import sys
from dataclasses import replace
from pathlib import Path

from gnano.data.corpus import Corpus
from gnano.data.manifest import Manifest
from gnano.data.preparing.preparation import prepare
from gnano.evals.answers import BeforeAfter
from gnano.infer.engine import Engine
from gnano.infer.sampling import Sampling
from gnano.live import LiveLine, clock
from gnano.model.arithmetic import flops_per_token, num_parameters
from gnano.report.metrics import read_metrics
from gnano.report.page import write_report
from gnano.report.plot import png_plot
from gnano.report.terminal import terminal_plot
from gnano.train.loop import RunResult, train
from gnano.train.recipe import Recipe, load_recipe
from gnano.train.watching.progress import Progress
from gnano.tuning import tune
from gnano.utils.best_effort import best_effort
from gnano.utils.streams import write_output
from gnano.utils.terminal import echo, takes_color

PROMPTS = {
    "prose": "Return a new array with",
    "story": "Once upon a time",
    "code": "class Parser:\n    def __init__(self",
}
SAMPLE_TOKENS = 120
SAMPLING = Sampling(temperature=0.7, top_k=40, seed=1)
ASKED, ANSWER_TOKENS = 50, 48
SHOWN = ("which module", "signature", "what it does")  # kinds of questions, of each one, if asked


def demo(recipe: Recipe, run: Path, questions: int = 0) -> RunResult:
    """Everything from text to samples in the folder `run`; prints what a person wants to see.

    With `questions` it goes on to tune on so many, in the folder `RUN-sft`; the result is then
    that of the tuning.
    """
    if questions < 0:
        raise ValueError(f"questions is {questions}; use 0 (none) or more.")
    lesson = _lesson(recipe, run, questions) if questions else None
    echo("1. Text that lies on this machine, as tokens")
    _show_corpus(_prepare(recipe), recipe)
    model = recipe.model
    echo(
        f"\n2. A Llama of {num_parameters(model):,} parameters, {recipe.train.steps:,} steps of "
        f"{recipe.train.tokens_per_step:,} tokens, {flops_per_token(model) / 1e6:.1f} MFLOPs each",
    )
    progress = Progress()
    try:
        result = train(recipe, run, progress, progress.say)
    finally:
        progress.line.close()
    if not result.finished:
        return result
    with best_effort("summary of the training"):
        _show_result(recipe, result)
    return _teach(lesson, run) if lesson else result


def _prepare(recipe: Recipe) -> Manifest:
    line = LiveLine()
    line.show("   reading it, and training a tokenizer on it …", important=True)
    try:
        return prepare(recipe.corpus, lambda status: line.show(str(status)))
    finally:
        line.close()


def _show_corpus(manifest: Manifest, recipe: Recipe) -> None:
    whole = sum(recipe.corpus.weights.values())
    echo(f"   {'source':<10} {'documents':>9} {'tokens':>10} {'held out':>9}   share of batches")
    for name, source in manifest.sources.items():
        share = recipe.corpus.sources[name].weight / whole
        echo(
            f"   {name:<10} {source.documents:>9,} {source.tokens:>10,} "
            f"{source.heldout_tokens:>9,}   {share:.0%}"
        )
    tokens = sum(source.tokens for source in manifest.sources.values())
    size = sum(source.bytes for source in manifest.sources.values())
    echo(
        f"   {manifest.tokenizer['name']} tokenizer, {size / tokens:.2f} bytes a token; "
        f"{recipe.train.steps * recipe.train.tokens_per_step / tokens:.2f} epochs to come"
    )


def _show_result(recipe: Recipe, result: RunResult) -> None:
    metrics = read_metrics(result.run / "metrics.jsonl")
    last = metrics[-1]
    ours = last["heldout"]["bits_per_byte"]
    fact = f"{ours:.3f} bits per byte of held-out text"
    title = f"{result.run.name}: {fact}"
    with best_effort("comparison with xz"):
        size, theirs = xz_bits_per_byte(Corpus(Path(recipe.corpus.folder)))
        title += f", xz -9 {theirs:.3f}"
        fact = (
            f"{ours:.3f} bits per byte on {size:,} bytes of held-out text; "
            f"xz -9 needs {theirs:.3f} for the same bytes ({theirs / ours:.2f} × as many)"
        )
    when = "Complete" if result.began < result.steps else "Already complete"
    echo(f"\n3. {when}: {fact}.")
    echo(f"   {result.steps:,} steps in {clock(last['seconds'])}, loss {last['loss']:.3f} nats\n")
    with best_effort("plot in the terminal"):
        write_output(terminal_plot(metrics, color=takes_color(sys.stdout)) + "\n")
    written = []
    with best_effort("picture of the run"):
        png_plot(metrics, result.run / "loss.png", title=title)
        written.append(result.run / "loss.png")
    samples = _samples(result.run)
    with best_effort("page of the run"):
        page = write_report(result.run, facts={"Held-out text": fact}, samples=samples)
        written.insert(0, page)
    echo(f"\nWritten: {', '.join(map(str, [*written, result.checkpoint]))}")


def _samples(run: Path) -> list[tuple[str, str, str]]:
    """What the model writes, shown as it comes: title, prompt and continuation."""
    echo("\n4. What it writes")
    engine = Engine.load(run)
    samples = []
    for title, prompt in PROMPTS.items():
        echo(f"\n── {title} " + "─" * (60 - len(title)) + f"\n{prompt}", end="")
        pieces = []
        for piece in engine.stream(prompt, SAMPLE_TOKENS, SAMPLING):
            echo(piece, end="")
            pieces.append(piece)
        echo("")
        samples.append((title, prompt, "".join(pieces)))
    return samples


def _lesson(recipe: Recipe, base: Path, questions: int) -> Recipe:
    """What comes after the pretraining, computed in the same way."""
    lesson = load_recipe("demo-sft")
    asked = lesson.instructions
    sources = {name: replace(of, max_records=questions) for name, of in asked.sources.items()}
    alike = {name: getattr(recipe.train, name) for name in ("device", "precision", "compile")}
    return replace(
        lesson,
        data=replace(asked, sources=sources),
        train=replace(lesson.train, base=str(base), **alike),
    )


def _teach(lesson: Recipe, base: Path) -> RunResult:
    echo("\n5. Taught to answer, by questions about the library of this Python")
    tuned = tune(lesson, base.with_name(f"{base.name}-sft"), answers=ASKED, tokens=ANSWER_TOKENS)
    if tuned.answers:
        _show_answers(tuned.answers)
    return tuned.result


def _show_answers(found: BeforeAfter) -> None:
    """Three, the first of its kind each, whether it went well or not."""
    first = {triple[0].category: triple for triple in reversed(found.triples())}
    kinds = [kind for kind in dict.fromkeys([*SHOWN, *first]) if kind in first]
    for question, before, after in (first[kind] for kind in kinds[: len(SHOWN)]):
        echo(f"\n── {question.category}, held out " + "─" * (48 - len(question.category)))
        *_, asked, expected = question.turns
        echo(f"{asked.content}\n{asked.context}".strip())
        said = {"before": before.text, "after": after.text, "right": expected.content}
        for when, text in said.items():
            echo(f"  {when + ':':<7} {' '.join(text.split())[:150] or '(nothing)'}")


def xz_bits_per_byte(corpus: Corpus) -> tuple[int, float]:
    """The held-out text's size in bytes, and what `xz -9` makes of it in bits per byte."""
    import lzma  # a Python that was built without it has the rest of the demo

    text = b"".join(corpus.heldout_text(number) for number in range(len(corpus.names)))
    return len(text), 8 * len(lzma.compress(text, preset=9)) / len(text)
