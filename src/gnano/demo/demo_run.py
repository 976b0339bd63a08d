"""Runs `gnano demo`: a small version of all steps from text to a model that answers.

    prepare text ─▶ pretrain ─▶ evaluate against xz ─▶ plot ─▶ generate ─▶ tune ─▶ answer

Every step uses the code of a large run; only the recipe is small. Each step keeps its results, so
the same command resumes after an interruption.
"""

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from gnano.config.inference_config import SamplingParams
from gnano.config.recipe import Recipe, load_recipe
from gnano.data.packed_dataset import TokenizedCorpus
from gnano.data.prepare.pipeline import prepare
from gnano.evals.sft_compare import AnswerComparison
from gnano.infer.engine import Engine
from gnano.model.flops import flops_per_token, num_parameters
from gnano.reporting.plots import save_png_plot
from gnano.reporting.run_report import finetune, write_html_report
from gnano.reporting.terminal_plot import render_terminal_plot
from gnano.train.logging.metrics_logger import ProgressBar
from gnano.train.trainer import RunResult, train
from gnano.utils.formatting import format_clock
from gnano.utils.jsonl_log import read_metrics
from gnano.utils.terminal import StatusLine, best_effort, echo, supports_color

PROMPTS = {
    "prose": "Return a new array with",
    "story": "Once upon a time",
    "code": "class Parser:\n    def __init__(self",
}
MAX_SAMPLE_TOKENS = 120
SAMPLING = SamplingParams(temperature=0.7, top_k=40, seed=1)
NUM_EVAL_QUESTIONS, MAX_ANSWER_TOKENS = 50, 48
# categories of the three questions that are printed, if they were evaluated
SHOWN_CATEGORIES = ("which module", "signature", "what it does")


def run_demo(recipe: Recipe, run: Path, questions: int = 0) -> RunResult:
    """Run all steps, with the pretraining in the folder `run`, and print their results.

    With `questions`, tune on that many in the folder `RUN-sft`; the result is then that of the
    tuning.
    """
    if questions < 0:
        raise ValueError(f"questions is {questions}; use 0 (none) or more.")
    # checked before the training starts; tuned on the same device and in the same precision
    sft_recipe = load_recipe("demo-sft")
    data = sft_recipe.tuning_data
    sources = {name: replace(s, max_records=questions) for name, s in data.sources.items()}
    shared = {name: getattr(recipe.train, name) for name in ("device", "precision", "compile")}
    sft_train = replace(sft_recipe.train, init_from=str(run), **shared)
    sft_recipe = replace(sft_recipe, data=replace(data, sources=sources), train=sft_train)

    _prepare_corpus(recipe)
    echo(
        f"\n2. A Llama of {num_parameters(recipe.model):,} parameters, "
        f"{recipe.train.steps:,} steps of {recipe.train.tokens_per_step:,} tokens, "
        f"{flops_per_token(recipe.model) / 1e6:.1f} MFLOPs per token"
    )
    progress = ProgressBar()
    with closing(progress.line):
        result = train(recipe, run, progress.update, progress.show_message)
    if not result.is_finished:
        return result
    with best_effort("summary of the training"):
        _print_result(recipe, result)
    if not questions:
        return result
    echo("\n5. Tuning on questions about Python's standard library")
    out = run.with_name(f"{run.name}-sft")
    result, comparison = finetune(
        sft_recipe, out, answers=NUM_EVAL_QUESTIONS, max_tokens=MAX_ANSWER_TOKENS
    )
    if comparison:
        _print_answers(comparison)
    return result


def _prepare_corpus(recipe: Recipe) -> None:
    echo("1. Text from this machine, as tokens")
    data = recipe.pretraining_data
    with closing(StatusLine()) as line:
        line.update("   reading it, and training a tokenizer on it …", important=True)
        manifest = prepare(data, line.update)
    total_weight = sum(data.weights.values())
    echo(f"   {'source':<10} {'documents':>9} {'tokens':>10} {'held out':>9}   share of batches")
    tokens, size = 0, 0
    for name, source in manifest.sources.items():
        echo(
            f"   {name:<10} {source.documents:>9,} {source.tokens:>10,} "
            f"{source.heldout_tokens:>9,}   {data.sources[name].weight / total_weight:.0%}"
        )
        tokens, size = tokens + source.tokens, size + source.bytes
    epochs = recipe.train.steps * recipe.train.tokens_per_step / tokens
    echo(
        f"   {manifest.tokenizer['name']} tokenizer, {size / tokens:.2f} bytes per token; "
        f"{epochs:.2f} epochs of training"
    )


def compute_xz_bits_per_byte(corpus: TokenizedCorpus) -> tuple[int, float]:
    """Return the held-out text's size in bytes, and the bits per byte that `xz -9` needs for it."""
    import lzma  # optional in a Python build; the rest of the demo does not need it

    text = b"".join(corpus.heldout_text(number) for number in range(len(corpus.source_names)))
    return len(text), 8 * len(lzma.compress(text, preset=9)) / len(text)


def _print_result(recipe: Recipe, result: RunResult) -> None:
    metrics = read_metrics(result.run / "metrics.jsonl")
    last = metrics[-1]
    bits = last["heldout"]["bits_per_byte"]
    fact = f"{bits:.3f} bits per byte of held-out text"
    title = f"{result.run.name}: {fact}"
    with best_effort("comparison with xz"):
        corpus = TokenizedCorpus(Path(recipe.pretraining_data.folder))
        size, xz_bits = compute_xz_bits_per_byte(corpus)
        title += f", xz -9 {xz_bits:.3f}"
        fact = (
            f"{bits:.3f} bits per byte on {size:,} bytes of held-out text; "
            f"xz -9 needs {xz_bits:.3f} for the same bytes ({xz_bits / bits:.2f} × as many)"
        )
    status = "Complete" if result.start_step < result.total_steps else "Already complete"
    duration = format_clock(last["seconds"])
    echo(f"\n3. {status}: {fact}.")
    echo(f"   {result.total_steps:,} steps in {duration}, loss {last['loss']:.3f} nats\n")
    with best_effort("plot in the terminal"):
        echo(render_terminal_plot(metrics, color=supports_color(sys.stdout)), keep_controls=True)
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
    """Stream a continuation of each prompt; return title, prompt and continuation."""
    echo("\n4. Samples of the model")
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


def _print_answers(comparison: AnswerComparison) -> None:
    """Print three answers before and after tuning: the first of each category, good or bad."""
    first = {triple[0].category: triple for triple in reversed(comparison.answer_pairs())}
    categories = [name for name in dict.fromkeys([*SHOWN_CATEGORIES, *first]) if name in first]
    for category in categories[: len(SHOWN_CATEGORIES)]:
        conversation, before, after = first[category]
        echo(f"\n── {category}, held out " + "─" * (48 - len(category)))
        *_, question, answer = conversation.turns
        echo(f"{question.content}\n{question.context}".strip())
        texts = {"before:": before.text, "after:": after.text, "right:": answer.content}
        for label, text in texts.items():
            echo(f"  {label:<7} {' '.join(text.split())[:150] or '(nothing)'}")
