"""What should a stranger know of a model? Its card: the README.md of what is published.

    config.json, the weights ────────▶ shape, parameters
    recipe.toml, metrics.jsonl ──────▶ data, training, results; of the run and of its base's
    the engine, with a fixed seed ───▶ a few texts
    the names of the files ──────────▶ how each tool opens them

A section whose facts are not there is left out. A path of this machine is nobody's business:
sources that are the author's own files appear by their names.
"""

import json
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from gnano.data.instructions import Template, Turn, encode_prompt, template_of
from gnano.export.card_scores import scores
from gnano.export.markdown import fenced, plain, table
from gnano.export.using import loading
from gnano.infer import Engine, Sampling
from gnano.model import ModelConfig, num_parameters, read_config
from gnano.report import Stage, base_name, stages
from gnano.train import find_checkpoint
from gnano.utils.text import read_text

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
LATE = 20  # the last 20th of the steps, over which the training loss is averaged


def usual_license(made: Sequence[Stage]) -> str:
    """A model made from nothing but its own runs is its author's to give; any other is not."""
    return "apache-2.0" if made and not made[-1].recipe.train.base else ""


def card(
    folder: Path,
    repo: str,
    files: Iterable[str] = (),
    license: str = "",
    languages: Sequence[str] = (),
    prompts: Sequence[str] = (),
) -> str:
    """The card of a checkpoint or model folder, as Markdown under the Hub's front matter.

    `files` are the names of all that is published beside it. Without a `license` the card has
    that of a model made from scratch, or none; `prompts` take the place of the usual ones.
    """
    folder = find_checkpoint(folder)
    made, shape, template = stages(folder), read_config(folder), template_of(folder)
    license = license or usual_license(made)
    sections = [
        _opening(repo, shape, made, template),
        loading(folder, repo, sorted(files), QUESTIONS[0] if template else ""),
        _architecture(folder, shape),
        *(part for stage in made for part in _stage(stage, many=len(made) > 1)),
        scores(folder),
        _format(template, made),
        _samples(folder, template, prompts),
        _limitations(shape, made, template),
        f"## Licence\n\n{license}" + _others(made) if license else "",
    ]
    front = _front_matter(made, license, languages, template is not None)
    return front + "\n" + "\n\n".join(filter(None, sections)) + "\n"


def _front_matter(
    made: Sequence[Stage], license: str, languages: Sequence[str], answers: bool
) -> str:
    """YAML, whose values are JSON: that is YAML too, and quotes what needs it."""
    sources = [source for stage in made for source in stage.sources.values()]
    if not languages and sources and all({s.generator, s.repo} & ENGLISH for s in sources):
        languages = ["en"]
    keys = {
        "license": license,
        "language": list(languages),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["llama", *(["gnano"] if made else []), *(["conversational"] if answers else [])],
        "datasets": _datasets(made),
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in keys.items() if value]
    return "\n".join(["---", *lines, "---", ""])


def _opening(
    repo: str, shape: ModelConfig, made: Sequence[Stage], template: Template | None
) -> str:
    what = f"A Llama of {num_parameters(shape):,} parameters"
    if made and made[0].tuned:
        what += f", tuned from {plain(base_name(made[0]))} with auto-g-nano"
    elif made:
        what += ", trained from scratch with auto-g-nano"
    does = "It answers questions." if template else "It continues texts."
    return f"# {repo.split('/')[-1]}\n\n{what}. {does}"


def _architecture(folder: Path, shape: ModelConfig) -> str:
    stored = json.loads(read_text(folder / "config.json"))
    dtype = stored.get("dtype") or stored.get("torch_dtype")
    rows = [
        ("parameters", f"{num_parameters(shape):,}"),
        ("layers, width", f"{shape.n_layer}, {shape.n_embd:,}"),
        (
            "attention",
            f"{shape.n_head} query and {shape.n_kv_head} key/value heads of {shape.head_size}, "
            f"causal, RoPE θ = {shape.rope_theta:,.0f}",
        ),
        ("feed-forward", f"SwiGLU, hidden {shape.ffn_hidden:,}"),
        ("norms", f"RMSNorm before each sub-layer and at the end, ε = {shape.norm_eps:g}"),
        ("biases, tied embeddings", "none"),
        ("vocabulary", f"{shape.vocab_size:,}"),
        ("context", f"{shape.block_size:,} tokens"),
        *([("weights stored as", str(dtype))] if dtype else []),
    ]
    return "## Architecture\n\n" + table(("", ""), rows)


def _stage(stage: Stage, many: bool) -> list[str]:
    """What it learned from, how, and how well."""
    of = f": {stage.tuned.kind if stage.tuned else 'pretraining'}" if many else ""
    parts = [
        (f"## Data{of}", _data(stage)),
        (f"## Training{of}", table(("", ""), _training(stage))),
        (f"## Results{of}", _results(stage)),
    ]
    return [f"{title}\n\n{text}" for title, text in parts if text]


def _data(stage: Stage) -> str:
    whole = sum(source.weight for source in stage.sources.values())
    rows = []
    for name, source in stage.sources.items():
        what = KINDS.get(source.generator or source.kind, source.where)
        if source.kind == "hub":
            url = f"https://huggingface.co/datasets/{source.repo}"
            what = f"[{source.repo}]({url}) {source.config}, {source.split}".replace(" ,", ",")
        share = f"{source.weight:g}" if stage.tuned else f"{source.weight / whole:.1%}"
        rows.append((name, what, share))
    head = ("source", "what", "times an epoch" if stage.tuned else "share of the tokens")
    return table(head, rows) if rows else ""


def _training(stage: Stage) -> list[tuple[str, str]]:
    train, facts, last = stage.recipe.train, stage.facts, (stage.rows or [{}])[-1]
    optimizer, schedule = train.optimizer, train.schedule
    rates = f"AdamW, β = ({optimizer.beta1:g}, {optimizer.beta2:g}), ε = {optimizer.eps:g}"
    if optimizer.kind == "muon":
        rates = f"Muon (momentum {optimizer.momentum:g}) for the layers' matrices; else {rates}"
    ranks = int(facts.get("ranks", 1))
    device = {"cuda": "GPU", "mps": "GPU", "cpu": "CPU"}.get(train.device)
    memory = _number(last.get("memory_gb"))
    seconds, speed = _number(last.get("seconds")), _number(last.get("tokens_per_s"))
    base = base_name(stage)
    rows = [
        ("run", f"{stage.name}, step {stage.step:,} of {train.steps:,}"),
        ("base", base),
        ("adapter", f"LoRA of rank {train.lora.rank}, merged" if train.lora.rank else ""),
        ("tokens", f"{last['tokens']:,}" if last.get("tokens") else ""),
        (
            "batch",
            f"{train.tokens_per_step:,} tokens a step, {stage.recipe.model.block_size:,} long",
        ),
        ("optimizer", f"{rates}, weight decay {optimizer.weight_decay:g}, clip {train.clip:g}"),
        (
            "learning rate",
            f"{schedule.peak:g} after {schedule.rise(train.steps):,} steps of warm-up, then "
            f"{schedule.kind} to {schedule.floor:.0%}",
        ),
        (
            "β of DPO",
            f"{train.beta:g}" if stage.tuned and stage.tuned.kind == "preferences" else "",
        ),
        ("precision", f"{train.precision}, master weights in fp32"),
        ("hardware", f"{ranks} × {facts.get('gpu') or device}" if device else ""),
        ("peak memory", f"{memory:.1f} GB{' each' * (ranks > 1)}" if memory else ""),
        (
            "time",
            f"{_time(seconds)}, {speed:,.0f} tokens/s at the end" if seconds and speed else "",
        ),
        ("seed", f"{train.seed}"),
        ("software", " · ".join(f"{k} {facts[k]}" for k in ("gnano", "torch") if k in facts)),
    ]
    return [(name, value) for name, value in rows if value]


def _results(stage: Stage) -> str:
    kind = stage.tuned.kind if stage.tuned else ""
    what = {"instructions": "answers", "preferences": "pairs of answers"}.get(kind, "text")
    unit = "nats per pair" if kind == "preferences" else "nats per token"
    losses = [x for row in stage.rows if (x := _number(row.get("loss"))) is not None]
    late = losses[-max(1, len(losses) // LATE) :]
    text = []
    if late:
        over = f"the last {len(late):,} steps" if len(late) > 1 else "the last step"
        text = [f"Training loss: {sum(late) / len(late):.3f} {unit} over {over}."]
    held = [row for row in stage.rows if isinstance(row.get("heldout"), dict)]
    if not held:
        return "\n\n".join(text)
    found, all_of_it = held[-1]["heldout"], "all of it" if held[-1].get("final") else "a part of it"
    text.append(f"Held-out {what}, {all_of_it}, at step {held[-1]['step']:,}:")
    columns = {"bits per byte": ("bits_per_byte", "sources"), unit: ("loss", "losses")}
    columns = {head: keys for head, keys in columns.items() if keys[0] in found}
    names = sorted({name for _, parts in columns.values() for name in found.get(parts, {})})
    rows = [
        (name, *(_figure(found.get(parts, {}).get(name)) for _, parts in columns.values()))
        for name in names
    ]
    rows.append(("all", *(_figure(found[key]) for key, _ in columns.values())))
    text.append(table(("held out", *columns), rows))
    if (right := _number(found.get("accuracy"))) is not None:
        text.append(f"It prefers the same one of a pair as the data do in {right:.1%} of them.")
    return "\n\n".join(text)


def _format(template: Template | None, made: Sequence[Stage]) -> str:
    if template is None:
        return ""
    name = Path(made[0].tuned.template).stem if made and made[0].tuned else ""
    called = f" ({name})" if name else ""
    asked = template.question((Turn("user", "Where is the key?"),))
    return (
        f"## Format\n\nIt was taught to answer when asked like this{called}, and to end its answer "
        f"with end-of-text; the tokenizer's chat template does the same:\n\n{fenced(asked)}"
    )


def _samples(folder: Path, template: Template | None, prompts: Sequence[str]) -> str:
    engine = Engine.load(folder)
    asked: list[str | list[int]] = list(prompts or PROMPTS)
    titles = list(prompts or (QUESTIONS if template else PROMPTS))
    if template:
        turns = [(Turn("user", title),) for title in titles]
        asked = [encode_prompt(turn, template, engine.tokenizer) for turn in turns]
    context = engine.model.config.block_size
    fit = [len(engine.prompt_ids(ids)) < context for ids in asked]  # with room to say something
    asked = [ids for ids, fits in zip(asked, fit, strict=True) if fits]
    titles = [title for title, fits in zip(titles, fit, strict=True) if fits]
    if not asked:
        return ""
    found = engine.complete(asked, SAMPLE_TOKENS, SAMPLING)
    between = "\n\n" if template else ""
    texts = [fenced(t + between + c.text) for t, [c] in zip(titles, found, strict=True)]
    return (
        f"## What it {'answers' if template else 'writes'}\n\nNot chosen: the first of each, with "
        f"temperature {SAMPLING.temperature:g}, the {SAMPLING.top_k} likeliest tokens and seed "
        f"{SAMPLING.seed}, {SAMPLE_TOKENS} tokens at most.\n\n" + "\n\n".join(texts)
    )


def _limitations(shape: ModelConfig, made: Sequence[Stage], template: Template | None) -> str:
    says = [
        "What it says may be false, however fluent it is: it is not a source of facts.",
        f"It sees {shape.block_size:,} tokens at most.",
        "It was not made safe: it may repeat what its training texts hold, prejudice included.",
    ]
    if template is None:
        says.append("It continues texts; it was not tuned to follow instructions.")
    pretrained = [stage for stage in made if not stage.tuned and stage.rows]
    if pretrained and (tokens := pretrained[-1].rows[-1].get("tokens")):
        ratio = tokens / num_parameters(shape)
        says.append(f"It has read {tokens:,} tokens, {ratio:.2g} for each of its parameters.")
    return "## Limitations\n\n" + "\n".join(f"- {sentence}" for sentence in says)


def _others(made: Sequence[Stage]) -> str:
    found = _datasets(made)
    return f". The data sets have terms of their own: {', '.join(found)}." if found else "."


def _datasets(made: Sequence[Stage]) -> list[str]:
    found = (source.repo for stage in made for source in stage.sources.values())
    return list(dict.fromkeys(repo for repo in found if repo))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _figure(value: Any) -> str:
    return "–" if (number := _number(value)) is None else f"{number:.3f}"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
