"""The whole way through the house, small: text, tokenizer, shards, training, samples.

    gather and tokenize ─▶ pretrain ─▶ measure against xz ─▶ plot ─▶ let it write
                                                              ─▶ tune ─▶ let it answer

Every part is the real one that a large run uses; only the recipe is small. Each part keeps
what it finished, so the same command goes on wherever the last one stopped.
"""

import sys
from dataclasses import replace
from pathlib import Path

from gnano.config.inference_config import SamplingParams
from gnano.config.recipe import Recipe, load_recipe
from gnano.data.manifest import Manifest
from gnano.data.prepare.pipeline import prepare
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals.sft_compare import AnswerComparison
from gnano.infer.engine import Engine
from gnano.model.flops import flops_per_token, num_parameters
from gnano.reporting.finetune import finetune
from gnano.reporting.html_report import write_html_report
from gnano.reporting.plots import render_terminal_plot, save_png_plot
from gnano.train.logging.progress_bar import ProgressBar
from gnano.train.trainer import RunResult, train
from gnano.utils.jsonl_log import read_metrics
from gnano.utils.progress import StatusLine, format_clock
from gnano.utils.streams import write_output
from gnano.utils.terminal import best_effort, echo, supports_color

PROMPTS = {
    "prose": "Return a new array with",
    "story": "Once upon a time",
    "code": "class Parser:\n    def __init__(self",
}
MAX_SAMPLE_TOKENS = 120
SAMPLING = SamplingParams(temperature=0.7, top_k=40, seed=1)
NUM_EVAL_QUESTIONS, MAX_ANSWER_TOKENS = 50, 48
SHOWN_CATEGORIES = (
    "which module",
    "signature",
    "what it does",
)  # kinds of questions, of each one, if asked


def run_demo(recipe: Recipe, run: Path, questions: int = 0) -> RunResult:
    """Everything from text to samples in the folder `run`; prints what a person wants to see.

    With `questions` it goes on to tune on so many, in the folder `RUN-sft`; the result is then
    that of the tuning.
    """
    if questions < 0:
        raise ValueError(f"questions is {questions}; use 0 (none) or more.")
    lesson = _sft_recipe(recipe, run, questions) if questions else None
    echo("1. Text that lies on this machine, as tokens")
    _print_corpus(_prepare_corpus(recipe), recipe)
    model = recipe.model
    echo(
        f"\n2. A Llama of {num_parameters(model):,} parameters, {recipe.train.steps:,} steps of "
        f"{recipe.train.tokens_per_step:,} tokens, {flops_per_token(model) / 1e6:.1f} MFLOPs each",
    )
    progress = ProgressBar()
    try:
        result = train(recipe, run, progress.update, progress.show_message)
    finally:
        progress.line.close()
    if not result.is_finished:
        return result
    with best_effort("summary of the training"):
        _print_result(recipe, result)
    return _run_sft(lesson, run) if lesson else result


def _prepare_corpus(recipe: Recipe) -> Manifest:
    line = StatusLine()
    line.update("   reading it, and training a tokenizer on it …", important=True)
    try:
        return prepare(recipe.pretraining_data, lambda status: line.update(str(status)))
    finally:
        line.close()


def _print_corpus(manifest: Manifest, recipe: Recipe) -> None:
    whole = sum(recipe.pretraining_data.weights.values())
    echo(f"   {'source':<10} {'documents':>9} {'tokens':>10} {'held out':>9}   share of batches")
    for name, source in manifest.sources.items():
        share = recipe.pretraining_data.sources[name].weight / whole
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


def _print_result(recipe: Recipe, result: RunResult) -> None:
    metrics = read_metrics(result.run / "metrics.jsonl")
    last = metrics[-1]
    ours = last["heldout"]["bits_per_byte"]
    fact = f"{ours:.3f} bits per byte of held-out text"
    title = f"{result.run.name}: {fact}"
    with best_effort("comparison with xz"):
        size, theirs = compute_xz_bits_per_byte(
            TokenizedCorpus(Path(recipe.pretraining_data.folder))
        )
        title += f", xz -9 {theirs:.3f}"
        fact = (
            f"{ours:.3f} bits per byte on {size:,} bytes of held-out text; "
            f"xz -9 needs {theirs:.3f} for the same bytes ({theirs / ours:.2f} × as many)"
        )
    when = "Complete" if result.start_step < result.total_steps else "Already complete"
    echo(f"\n3. {when}: {fact}.")
    echo(
        f"   {result.total_steps:,} steps in {format_clock(last['seconds'])}, loss {last['loss']:.3f} nats\n"
    )
    with best_effort("plot in the terminal"):
        write_output(render_terminal_plot(metrics, color=supports_color(sys.stdout)) + "\n")
    written = []
    with best_effort("picture of the run"):
        save_png_plot(metrics, result.run / "loss.png", title=title)
        written.append(result.run / "loss.png")
    samples = _print_samples(result.run)
    with best_effort("page of the run"):
        page = write_html_report(result.run, facts={"Held-out text": fact}, samples=samples)
        written.insert(0, page)
    echo(f"\nWritten: {', '.join(map(str, [*written, result.checkpoint]))}")


def _print_samples(run: Path) -> list[tuple[str, str, str]]:
    """What the model writes, shown as it comes: title, prompt and continuation."""
    echo("\n4. What it writes")
    engine = Engine.load(run)
    samples = []
    for title, prompt in PROMPTS.items():
        echo(f"\n── {title} " + "─" * (60 - len(title)) + f"\n{prompt}", end="")
        pieces = []
        for piece in engine.stream_text(prompt, MAX_SAMPLE_TOKENS, SAMPLING):
            echo(piece, end="")
            pieces.append(piece)
        echo("")
        samples.append((title, prompt, "".join(pieces)))
    return samples


def _sft_recipe(recipe: Recipe, base: Path, questions: int) -> Recipe:
    """What comes after the pretraining, computed in the same way."""
    lesson = load_recipe("demo-sft")
    asked = lesson.tuning_data
    sources = {name: replace(of, max_records=questions) for name, of in asked.sources.items()}
    alike = {name: getattr(recipe.train, name) for name in ("device", "precision", "compile")}
    return replace(
        lesson,
        data=replace(asked, sources=sources),
        train=replace(lesson.train, init_from=str(base), **alike),
    )


def _run_sft(sft_recipe: Recipe, base: Path) -> RunResult:
    echo("\n5. Taught to answer, by questions about the library of this Python")
    tuned = finetune(
        sft_recipe,
        base.with_name(f"{base.name}-sft"),
        answers=NUM_EVAL_QUESTIONS,
        max_tokens=MAX_ANSWER_TOKENS,
    )
    if tuned.comparison:
        _print_answers(tuned.comparison)
    return tuned.result


def _print_answers(comparison: AnswerComparison) -> None:
    """Three, the first of its kind each, whether it went well or not."""
    first = {triple[0].category: triple for triple in reversed(comparison.answer_pairs())}
    kinds = [kind for kind in dict.fromkeys([*SHOWN_CATEGORIES, *first]) if kind in first]
    for question, before, after in (first[kind] for kind in kinds[: len(SHOWN_CATEGORIES)]):
        echo(f"\n── {question.category}, held out " + "─" * (48 - len(question.category)))
        *_, asked, expected = question.turns
        echo(f"{asked.content}\n{asked.context}".strip())
        said = {"before": before.text, "after": after.text, "right": expected.content}
        for when, text in said.items():
            echo(f"  {when + ':':<7} {' '.join(text.split())[:150] or '(nothing)'}")


def compute_xz_bits_per_byte(corpus: TokenizedCorpus) -> tuple[int, float]:
    """The held-out text's size in bytes, and what `xz -9` makes of it in bits per byte."""
    import lzma  # a Python that was built without it has the rest of the demo

    text = b"".join(corpus.heldout_text(number) for number in range(len(corpus.source_names)))
    return len(text), 8 * len(lzma.compress(text, preset=9)) / len(text)
