"""Writes the model card, the README.md of a published model, from `card.md.j2`.

    config.json, the weights ────────▶ shape, parameters
    recipe.toml, metrics.jsonl ──────▶ data, training, results; of the run and of its base's
    evals/ ──────────────────────────▶ scores of `gnano eval`
    the engine, with a fixed seed ───▶ samples
    the file names ──────────────────▶ how to load them in each tool

A section without facts is left out. Paths of this machine are not published: the author's own
files appear by the name of their source.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from gnano.checkpoint.run_checkpoints import find_checkpoint
from gnano.config.inference_config import LoadConfig, SamplingParams
from gnano.data.sft.chat_template import AnyTemplate, ChatTemplate, read_template
from gnano.data.sft.conversations import Turn
from gnano.data.sft.encoding import encode_prompt
from gnano.evals.result_store import load_valid_results
from gnano.infer.engine import Engine
from gnano.model.flops import num_parameters
from gnano.model.hf_io import load_config, read_json_object
from gnano.reporting.plots import finite_number
from gnano.train.lineage import TrainingStage, format_base_name, training_stages
from gnano.utils.formatting import format_shell_command
from gnano.utils.templates import render_template

SAMPLE_SETTINGS = SamplingParams(temperature=0.7, top_k=40, seed=1)
SAMPLE_TOKENS = 80
DEFAULT_PROMPTS = ("Once upon a time", "The most important thing about water is", "def main(")
DEFAULT_QUESTIONS = ("What is a language model?", "Name three colours.", "How do I boil an egg?")
SOURCE_KIND_DESCRIPTIONS = {
    "gnano.demo.python_corpus:PROSE": "documentation of a Python installation",
    "gnano.demo.python_corpus:CODE": "code of a Python installation",
    "gnano.demo.synthetic_text:PASSAGES": "stories written by a generator",
    "gnano.demo.python_questions:QUESTIONS": "questions about Python's library",
    "files": "files of the author",
}
ENGLISH_SOURCES = {
    *(name for name in SOURCE_KIND_DESCRIPTIONS if name.startswith("gnano.demo.")),
    *("HuggingFaceTB/smollm-corpus", "bigcode/starcoderdata", "databricks/databricks-dolly-15k"),
}
FINAL_LOSS_DIVISOR = 20  # the training loss is averaged over the last 20th of the steps


def build_model_card(
    folder: Path,
    repo: str,
    files: Iterable[str] = (),
    license_id: str = "",
    languages: Sequence[str] = (),
    prompts: Sequence[str] = (),
) -> str:
    """Return the card of a checkpoint or model folder, as Markdown with the Hub's front matter.

    `files` are the names of all published files. Without `license_id`, a model trained from
    scratch gets apache-2.0 and others none. `prompts` replace the default ones.
    """
    folder = find_checkpoint(folder)
    stages, config, template = training_stages(folder), load_config(folder), read_template(folder)
    stored = read_json_object(folder / "config.json")
    tuning = stages[0].instruction_config if stages else None
    if not license_id and stages and not stages[-1].recipe.train.init_from:
        license_id = "apache-2.0"
    origin = ", trained from scratch with auto-g-nano" if stages else ""
    if tuning:
        origin = f", tuned from {_escape_markdown(format_base_name(stages[0]))} with auto-g-nano"
    sources = [source for stage in stages for source in stage.sources.values()]
    datasets = list(dict.fromkeys(source.repo for source in sources if source.repo))
    if not languages and sources and all({s.generator, s.repo} & ENGLISH_SOURCES for s in sources):
        languages = ["en"]
    metadata = ModelCardData(
        license=license_id or None,
        language=list(languages) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["llama", *["gnano"] * bool(stages), *["conversational"] * bool(template)],
        datasets=datasets or None,
    )
    begin = ""  # the token that a prompt must start with if the tokenizer does not add it
    with suppress(OSError, ValueError):
        settings = read_json_object(folder / "tokenizer_config.json")
        if settings.get("add_bos_token") is False and isinstance(settings.get("bos_token"), str):
            begin = settings["bos_token"]
    pretrained = [stage for stage in stages if not stage.instruction_config and stage.metrics]
    # of each task the newest score that `gnano eval` saved for this checkpoint
    saved = load_valid_results(folder, LoadConfig())
    scores = {score.task: score for result in saved for score in result.scores}
    filters: dict[str, Callable[..., Any]] = {  # all untrusted text passes one of these
        "fenced": _fence_code,
        "table": _markdown_table,
        "plain": _escape_markdown,
        "commas": "{:,}".format,
        "quoted": partial(json.dumps, ensure_ascii=False),  # Python reads JSON strings
        "number": finite_number,
    }
    return render_template(
        Path(__file__).with_name("card.md.j2"),
        filters,
        shell=format_shell_command,
        metadata=metadata.to_yaml(),
        repo=repo,
        config=config,
        parameters=num_parameters(config),
        dtype=stored.get("dtype") or stored.get("torch_dtype"),
        origin=origin,
        template=template,
        template_name=Path(tuning.template).stem if tuning else "",
        template_example=template.render_prompt((Turn("user", "Where is the key?"),))
        if isinstance(template, ChatTemplate)
        else None,
        prompt=DEFAULT_QUESTIONS[0] if template else DEFAULT_PROMPTS[0],
        begin=begin,
        files=sorted(files),
        stages=[(stage, _describe_stage(stage)) for stage in stages],
        scores=list(scores.values()),
        sampling=SAMPLE_SETTINGS,
        sample_tokens=SAMPLE_TOKENS,
        samples=_generate_samples(folder, template, prompts),
        tokens_read=pretrained[-1].metrics[-1].get("tokens") if pretrained else None,
        license=license_id,
        datasets=datasets,
    )


def _markdown_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = ([_escape_markdown(cell) for cell in row] for row in rows)
    return "".join(f"| {' | '.join(row)} |\n" for row in [headers, ["---"] * len(headers), *cells])


def _escape_markdown(text: str) -> str:
    """Escape text that Markdown would read as the border of a cell or as HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _fence_code(text: str, language: str = "text") -> str:
    """Put the text in a fence that it cannot close."""
    ticks = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, ticks + 1)
    printable = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return f"{fence}{language}\n{printable.rstrip()}\n{fence}\n"


def _describe_stage(stage: TrainingStage) -> dict[str, Any]:
    """Return what the template states of a run: its data, settings and results."""
    tuning, metrics = stage.instruction_config, stage.metrics
    kind = tuning.kind if tuning else "pretraining"
    total = sum(source.weight for source in stage.sources.values())
    data = []
    for name, source in stage.sources.items():
        content = SOURCE_KIND_DESCRIPTIONS.get(source.generator or source.kind, source.location)
        if source.kind == "hub":
            url = f"https://huggingface.co/datasets/{source.repo}"
            content = f"[{source.repo}]({url}) {source.config}, {source.split}".replace(" ,", ",")
        share = f"{source.weight:g}" if tuning else f"{source.weight / total:.1%}"
        data.append((name, content, share))
    losses = [loss for row in metrics if (loss := finite_number(row.get("loss"))) is not None]
    measured = [row for row in metrics if isinstance(row.get("heldout"), dict)]
    unit = "nats per pair" if kind == "preferences" else "nats per token"
    facts = stage.run_metadata
    return {
        "kind": kind,
        "base": format_base_name(stage),
        "unit": unit,
        "data": data,
        "software": " · ".join(f"{k} {facts[k]}" for k in ("gnano", "torch") if k in facts),
        "last": metrics[-1] if metrics else {},
        "late_losses": losses[-max(1, len(losses) // FINAL_LOSS_DIVISOR) :],
        "measured": measured[-1] if measured else None,
        "heldout_table": _heldout_table(measured[-1]["heldout"], unit) if measured else "",
    }


def _heldout_table(heldout: dict[str, Any], unit: str) -> str:
    """Return the held-out losses of each source and of all, in bits per byte and in `unit`."""
    columns = {"bits per byte": ("bits_per_byte", "sources"), unit: ("loss", "losses")}
    columns = {header: keys for header, keys in columns.items() if keys[0] in heldout}
    sources = [heldout.get(parts, {}) for _, parts in columns.values()]
    names = sorted({name for values in sources for name in values})
    rows = [(name, *(_format_metric(values.get(name)) for values in sources)) for name in names]
    rows.append(("all", *(_format_metric(heldout[key]) for key, _ in columns.values())))
    return _markdown_table(("held out", *columns), rows)


def _generate_samples(
    folder: Path, template: AnyTemplate | None, prompts: Sequence[str]
) -> list[str]:
    """Return each prompt with the model's continuation or answer."""
    engine = Engine.load(folder)
    context = engine.model.config.block_size  # a prompt must leave space for an answer
    inputs: list[tuple[str, str | list[int]]] = []
    for title in prompts or (DEFAULT_QUESTIONS if template else DEFAULT_PROMPTS):
        prompt: str | list[int] = title
        if template:
            prompt = encode_prompt((Turn("user", title),), template, engine.tokenizer)
        if len(engine.encode_prompt(prompt)) < context:
            inputs.append((title, prompt))
    encoded = [prompt for _, prompt in inputs]
    completions = engine.generate_batch(encoded, SAMPLE_TOKENS, SAMPLE_SETTINGS)
    between = "\n\n" if template else ""
    return [t + between + group[0].text for (t, _), group in zip(inputs, completions, strict=True)]


def _format_metric(value: Any) -> str:
    return "–" if (number := finite_number(value)) is None else f"{number:.3f}"
