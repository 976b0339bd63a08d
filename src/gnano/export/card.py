"""Writes the model card, the README.md of a published model, from `card.md.j2`.

    config.json, the weights ────────▶ shape, parameters
    recipe.toml, metrics.jsonl ──────▶ data, training, results; of the run and of its base's
    evals/ ──────────────────────────▶ what `gnano eval` measured
    the engine, with a fixed seed ───▶ a few texts
    the names of the files ──────────▶ how each tool opens them

A section without facts is left out. Paths of this machine are not published: sources that are the
author's own files appear by their names.
"""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gnano.data.instructions.conversations import Turn
from gnano.data.instructions.encoding import encode_prompt
from gnano.data.instructions.templates import Template, template_of
from gnano.evals.saved import saved_results
from gnano.infer.engine import Engine
from gnano.infer.loading import Loading
from gnano.infer.sampling import Sampling
from gnano.model.arithmetic import num_parameters
from gnano.model.folder import read_config, read_json
from gnano.report.lineage import Stage, base_name, stages
from gnano.report.metrics import figure
from gnano.train.saving.folders import find_checkpoint
from gnano.utils.shell import shell_command

SAMPLING = Sampling(temperature=0.7, top_k=40, seed=1)
SAMPLE_TOKENS = 80
PROMPTS = ("Once upon a time", "The most important thing about water is", "def main(")
QUESTIONS = ("What is a language model?", "Name three colours.", "How do I boil an egg?")
KINDS = {
    "gnano.demo.python_corpus:PROSE": "documentation of a Python installation",
    "gnano.demo.python_corpus:CODE": "code of a Python installation",
    "gnano.demo.synthetic_text:PASSAGES": "stories written by a generator",
    "gnano.demo.python_questions:QUESTIONS": "questions about Python's library",
    "files": "files of the author",
}
ENGLISH = {  # sources that are known to be
    *(name for name in KINDS if name.startswith("gnano.demo.")),
    *("HuggingFaceTB/smollm-corpus", "bigcode/starcoderdata", "databricks/databricks-dolly-15k"),
}
LATE = 20  # the training loss is averaged over the last 20th of the steps


def card(
    folder: Path,
    repo: str,
    files: Iterable[str] = (),
    license: str = "",
    languages: Sequence[str] = (),
    prompts: Sequence[str] = (),
) -> str:
    """Return the card of a checkpoint or model folder, as Markdown under the Hub's front matter.

    `files` are the names of all that is published beside it. Without a `license` the card has
    that of a model made from scratch, or none; `prompts` take the place of the usual ones.
    """
    folder = find_checkpoint(folder)
    made, config, template = stages(folder), read_config(folder), template_of(folder)
    stored = read_json(folder / "config.json")
    if not license and made and not made[-1].recipe.train.base:
        license = "apache-2.0"  # made from nothing but its own runs, it is its author's to license
    origin = ", trained from scratch with auto-g-nano" if made else ""
    if made and made[0].tuned:
        origin = f", tuned from {_plain(base_name(made[0]))} with auto-g-nano"
    template_name = Path(made[0].tuned.template).stem if made and made[0].tuned else ""
    pretrained = [stage for stage in made if not stage.tuned and stage.rows]
    return (
        _environment()
        .get_template("card.md.j2")
        .render(
            metadata=_metadata(made, license, languages, template is not None),
            repo=repo,
            config=config,
            parameters=num_parameters(config),
            dtype=stored.get("dtype") or stored.get("torch_dtype"),
            origin=origin,
            template=template,
            template_name=template_name,
            template_example=template and template.question((Turn("user", "Where is the key?"),)),
            prompt=QUESTIONS[0] if template else PROMPTS[0],
            begin=_begin_token(folder),
            files=sorted(files),
            stages=[_describe_stage(stage, len(made) > 1) for stage in made],
            scores=_scores(folder),
            sampling=SAMPLING,
            sample_tokens=SAMPLE_TOKENS,
            samples=_samples(folder, template, prompts),
            tokens_read=pretrained[-1].rows[-1].get("tokens") if pretrained else None,
            license=license,
            datasets=_datasets(made),
        )
    )


def _environment() -> Environment:
    """Return the templates' environment; all text from outside passes one of its filters."""
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {"fenced": _fenced, "table": _table, "plain": _plain, "commas": "{:,}".format}
    found.filters["quoted"] = partial(json.dumps, ensure_ascii=False)  # Python reads JSON strings
    found.globals["shell"] = shell_command
    return found


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_plain(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _plain(text: str) -> str:
    """Escape what Markdown would take for the border of a cell or for HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _fenced(text: str, language: str = "text") -> str:
    """Put the text unchanged within a fence that it cannot close."""
    ticks = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, ticks + 1)
    shown = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return f"{fence}{language}\n{shown.rstrip()}\n{fence}\n"


def _metadata(made: Sequence[Stage], license: str, languages: Sequence[str], answers: bool) -> str:
    """Return the front matter, as YAML."""
    sources = [source for stage in made for source in stage.sources.values()]
    if not languages and sources and all({s.generator, s.repo} & ENGLISH for s in sources):
        languages = ["en"]
    data = ModelCardData(
        license=license or None,
        language=list(languages) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["llama", *(["gnano"] if made else []), *(["conversational"] if answers else [])],
        datasets=_datasets(made) or None,
    )
    return str(data.to_yaml())


def _begin_token(folder: Path) -> str:
    """Return what a text must begin with where the tokenizer does not put it there by itself."""
    with suppress(OSError, ValueError):
        settings = read_json(folder / "tokenizer_config.json")
        if settings.get("add_bos_token") is False and isinstance(settings.get("bos_token"), str):
            return str(settings["bos_token"])
    return ""


def _describe_stage(stage: Stage, many: bool) -> dict[str, Any]:
    """Return what one run learned from, how, and how well."""
    kind = stage.tuned.kind if stage.tuned else "pretraining"
    share = "times an epoch" if stage.tuned else "share of the tokens"
    return {
        "suffix": f": {kind}" if many else "",
        "head": ("source", "what", share),
        "data": _data(stage),
        "training": _training(stage),
        "results": _results(stage),
    }


def _data(stage: Stage) -> list[tuple[str, str, str]]:
    total = sum(source.weight for source in stage.sources.values())
    rows = []
    for name, source in stage.sources.items():
        what = KINDS.get(source.generator or source.kind, source.where)
        if source.kind == "hub":
            url = f"https://huggingface.co/datasets/{source.repo}"
            what = f"[{source.repo}]({url}) {source.config}, {source.split}".replace(" ,", ",")
        share = f"{source.weight:g}" if stage.tuned else f"{source.weight / total:.1%}"
        rows.append((name, what, share))
    return rows


def _training(stage: Stage) -> list[tuple[str, str]]:
    train, facts, last = stage.recipe.train, stage.facts, (stage.rows or [{}])[-1]
    optimizer, schedule = train.optimizer, train.schedule
    rates = f"AdamW, β = ({optimizer.beta1:g}, {optimizer.beta2:g}), ε = {optimizer.eps:g}"
    if optimizer.kind == "muon":
        rates = f"Muon (momentum {optimizer.momentum:g}) for the layers' matrices; else {rates}"
    ranks = int(facts.get("ranks", 1))
    device = {"cuda": "GPU", "mps": "GPU", "cpu": "CPU"}.get(train.device)
    memory = figure(last.get("memory_gb"))
    seconds, speed = figure(last.get("seconds")), figure(last.get("tokens_per_s"))
    tokens_per_step = f"{train.tokens_per_step:,} tokens a step"
    peak = f"{schedule.peak:g} after {schedule.rise(train.steps):,} steps of warm-up"
    is_dpo = stage.tuned is not None and stage.tuned.kind == "preferences"
    rows = {
        "run": f"{stage.name}, step {stage.step:,} of {train.steps:,}",
        "base": base_name(stage),
        "adapter": f"LoRA of rank {train.lora.rank}, merged" if train.lora.rank else "",
        "tokens": f"{last['tokens']:,}" if last.get("tokens") else "",
        "batch": f"{tokens_per_step}, {stage.recipe.model.block_size:,} long",
        "optimizer": f"{rates}, weight decay {optimizer.weight_decay:g}, clip {train.clip:g}",
        "learning rate": f"{peak}, then {schedule.kind} to {schedule.floor:.0%}",
        "β of DPO": f"{train.beta:g}" if is_dpo else "",
        "precision": f"{train.precision}, master weights in fp32",
        "hardware": f"{ranks} × {facts.get('gpu') or device}" if device else "",
        "peak memory": f"{memory:.1f} GB{' each' * (ranks > 1)}" if memory else "",
        "time": f"{_time(seconds)}, {speed:,.0f} tokens/s at the end" if seconds and speed else "",
        "seed": f"{train.seed}",
        "software": " · ".join(f"{k} {facts[k]}" for k in ("gnano", "torch") if k in facts),
    }
    return [(name, value) for name, value in rows.items() if value]


def _results(stage: Stage) -> list[str]:
    """Return paragraphs on the training loss and the last held-out loss, as far as logged."""
    kind = stage.tuned.kind if stage.tuned else ""
    what = {"instructions": "answers", "preferences": "pairs of answers"}.get(kind, "text")
    unit = "nats per pair" if kind == "preferences" else "nats per token"
    losses = [loss for row in stage.rows if (loss := figure(row.get("loss"))) is not None]
    late = losses[-max(1, len(losses) // LATE) :]
    paragraphs = []
    if late:
        over = f"the last {len(late):,} steps" if len(late) > 1 else "the last step"
        paragraphs = [f"Training loss: {sum(late) / len(late):.3f} {unit} over {over}."]
    measured = [row for row in stage.rows if isinstance(row.get("heldout"), dict)]
    if not measured:
        return paragraphs
    row, heldout = measured[-1], measured[-1]["heldout"]
    extent = "all of it" if row.get("final") else "a part of it"
    paragraphs.append(f"Held-out {what}, {extent}, at step {row['step']:,}:")
    columns = {"bits per byte": ("bits_per_byte", "sources"), unit: ("loss", "losses")}
    columns = {head: keys for head, keys in columns.items() if keys[0] in heldout}
    sources = [heldout.get(parts, {}) for _, parts in columns.values()]
    names = sorted({name for values in sources for name in values})
    rows = [(name, *(_figure(values.get(name)) for values in sources)) for name in names]
    rows.append(("all", *(_figure(heldout[key]) for key, _ in columns.values())))
    paragraphs.append(_table(("held out", *columns), rows).rstrip())
    if (accuracy := figure(heldout.get("accuracy"))) is not None:
        agreement = f"{accuracy:.1%} of them"
        paragraphs.append(f"It prefers the same one of a pair as the data do in {agreement}.")
    return paragraphs


def _scores(folder: Path) -> list[tuple[str, ...]]:
    """Return the newest score of each task that `gnano eval` kept of this checkpoint."""
    saved = sorted(saved_results(folder, Loading()), key=lambda pair: pair[0].stat().st_mtime)
    newest = {score.task: score for _, result in saved for score in result.scores}
    return [
        (
            score.title,
            f"{score.items:,}",
            str(score.shots),
            str(score.acc),
            str(score.acc_norm or ""),
            "" if score.chance is None else f"{score.chance:.3f}",
        )
        for score in newest.values()
    ]


def _samples(folder: Path, template: Template | None, prompts: Sequence[str]) -> list[str]:
    """Return what the model writes for each prompt, behind the prompt."""
    engine = Engine.load(folder)
    titles = prompts or (QUESTIONS if template else PROMPTS)
    inputs: list[tuple[str, str | list[int]]] = [(title, title) for title in titles]
    if template:
        turns = [(title, (Turn("user", title),)) for title in titles]
        inputs = [(t, encode_prompt(turn, template, engine.tokenizer)) for t, turn in turns]
    context = engine.model.config.block_size  # a prompt must leave room for an answer
    inputs = [(t, prompt) for t, prompt in inputs if len(engine.prompt_ids(prompt)) < context]
    if not inputs:
        return []
    completions = engine.complete([prompt for _, prompt in inputs], SAMPLE_TOKENS, SAMPLING)
    between = "\n\n" if template else ""
    return [t + between + found.text for (t, _), [found] in zip(inputs, completions, strict=True)]


def _datasets(made: Sequence[Stage]) -> list[str]:
    repos = (source.repo for stage in made for source in stage.sources.values())
    return list(dict.fromkeys(repo for repo in repos if repo))


def _figure(value: Any) -> str:
    return "–" if (number := figure(value)) is None else f"{number:.3f}"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
