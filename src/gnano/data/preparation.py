"""From documents to token shards, source by source; started again, it goes on.

    documents ─▶ drop repeats ─▶ split ─▶ tokenizer ─▶ SOURCE/00000.tokens … , heldout.tokens

Each source is written into `SOURCE.partial/` and renamed when it is whole; then the
manifest names it. What is finished is never done again, and what was broken off leaves
nothing behind that a reader could take for data.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnano.data.documents import Document, find_files
from gnano.data.manifest import NAME, Manifest, SourceInfo
from gnano.data.shards import ShardInfo, ShardWriter, is_whole
from gnano.data.sources import DataConfig, Source, documents
from gnano.data.split import digest, is_heldout

if TYPE_CHECKING:
    from gnano.tokenizer import Tokenizer

TOKENIZER_SAMPLE = 32 * 2**20  # bytes of text that a tokenizer of our own is trained on
DOCUMENTS_AT_ONCE = 256  # tokenized together

Progress = Callable[[str, int, int], None]  # source, documents so far, tokens so far


def prepare(config: DataConfig, progress: Progress = lambda *_: None) -> Manifest:
    """Make `config.folder` hold the shards that the configuration asks for.

    Raises ValueError where a source gives no text, a file is not what it seems, or the
    folder was prepared for something else.
    """
    if not config.sources:
        raise ValueError("The recipe names no data.sources to prepare.")
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan = _plan(config)
    manifest = _begun(folder, plan)
    tokenizer = _tokenizer(config, folder, manifest)
    if tokenizer.vocab_size > 2**16:
        raise ValueError(
            f"data.tokenizer {config.tokenizer!r} has {tokenizer.vocab_size:,} ids, and shards "
            f"keep ids in 16 bits: use one of {2**16:,} or fewer."
        )
    tokenizer.save(folder)
    if manifest is None:
        vocabulary = {key: getattr(tokenizer, key) for key in ("name", "fingerprint", "vocab_size")}
        manifest = Manifest(plan=plan, tokenizer=vocabulary)
    finished, manifest.sources = manifest.sources, {}
    for name, source in config.sources.items():
        info = finished.get(name)
        if info is None or not all(
            is_whole(folder / name, s) for s in [*info.shards, info.heldout]
        ):
            manifest.complete = False
            info = _prepare_source(folder, name, source, config, tokenizer, progress)
        manifest.sources[name] = info
        if not manifest.complete:
            manifest.save(folder)
    if not manifest.complete:
        manifest.complete = True
        manifest.save(folder)
    return manifest


def _plan(config: DataConfig) -> dict[str, Any]:
    """What the shards depend on. Weights are not in it: they are applied when reading."""
    sources = {}
    for name, source in config.sources.items():
        asked = asdict(source)
        del asked["weight"]
        if source.kind == "files":
            asked["files"] = [[str(f), f.stat().st_size] for f in find_files(source.files)]
        sources[name] = {key: list(v) if isinstance(v, tuple) else v for key, v in asked.items()}
    return {
        "tokenizer": config.tokenizer,
        "heldout": config.heldout,
        "shard_tokens": config.shard_tokens,
        "sources": sources,
    }


def _begun(folder: Path, plan: dict[str, Any]) -> Manifest | None:
    """What an earlier run has finished; refuses a folder made for another plan."""
    if not (folder / NAME).exists():
        return None
    manifest = Manifest.load(folder)
    if manifest.plan != plan:
        different = [key for key in plan if manifest.plan.get(key) != plan[key]]
        raise ValueError(
            f"{folder} was prepared for another {' and '.join(different)}; choose another "
            f"folder (--data.folder), or delete this one to make it anew."
        )
    return manifest


def _tokenizer(config: DataConfig, folder: Path, manifest: Manifest | None) -> "Tokenizer":
    from gnano.tokenizer import Tokenizer, gpt2, train_bpe

    if manifest is not None:
        tokenizer = Tokenizer.load(folder)
        if tokenizer.fingerprint != manifest.tokenizer["fingerprint"]:
            raise ValueError(
                f"{folder / 'tokenizer.json'} is not the tokenizer that made these shards: "
                f"delete {folder} and prepare it again."
            )
        return tokenizer
    kind, _, size = config.tokenizer.partition("-")
    if config.tokenizer == "gpt2":
        return gpt2()
    if kind == "bpe" and size.isdecimal():
        return train_bpe(_sample(config), int(size))
    named = Path(config.tokenizer).expanduser()
    if not named.is_dir():
        raise ValueError(
            f"data.tokenizer is {config.tokenizer!r}, which is neither gpt2, nor bpe-N "
            f"(such as bpe-4096), nor a folder."
        )
    if (named / "tokenizer.json").exists():
        return Tokenizer.load(named)
    return gpt2(named)


def _sample(config: DataConfig) -> Iterator[str]:
    """Training text of all sources in their shares; the held-out part stays unseen."""
    whole = sum(source.weight for source in config.sources.values())
    for name, source in config.sources.items():
        share = room = TOKENIZER_SAMPLE * source.weight / whole
        for document in documents(source):
            if room <= 0:
                break
            if not is_heldout(document, config.heldout):
                room -= len(document.text)
                yield document.text
        if share and room == share:
            where = ", ".join(source.files) or source.kind
            raise ValueError(f"Source {name!r} ({where}) gives no training text.")


def _cleared(folder: Path, name: str) -> Path:
    """An empty `NAME.partial/`, and no `NAME/`; refuses to remove what is not ours."""
    partial = folder / f"{name}.partial"
    for old in (partial, folder / name):
        for path in old.rglob("*"):
            if path.suffix not in (".tokens", ".docs", ".partial"):
                raise ValueError(
                    f"{old} is where the shards of source {name!r} belong, but it holds files "
                    f"of yours ({path.name}); rename the source, or choose another data.folder."
                )
        if old.exists():
            shutil.rmtree(old)
    partial.mkdir()
    return partial


def _fresh(source: Source, counts: Counter[bytes]) -> Iterator[Document]:
    """The source's documents without repeats; `counts` counts every text that was read."""
    for document in documents(source):
        key = digest(document.text)
        counts[key] += 1
        if counts[key] == 1:
            yield document


def _prepare_source(
    folder: Path,
    name: str,
    source: Source,
    config: DataConfig,
    tokenizer: "Tokenizer",
    progress: Progress,
) -> SourceInfo:
    partial = _cleared(folder, name)
    counts: Counter[bytes] = Counter()
    texts = _fresh(source, counts)
    shards: list[ShardInfo] = []
    tokens = done = 0
    with ExitStack() as stack:
        heldout = stack.enter_context(ShardWriter(partial, "heldout", tokenizer.end_of_text))
        shard: ShardWriter | None = None
        while group := list(islice(texts, DOCUMENTS_AT_ONCE)):
            for document, ids in zip(
                group, tokenizer.encode_batch([d.text for d in group]), strict=True
            ):
                size = len(document.text.encode())
                if is_heldout(document, config.heldout):
                    heldout.add(ids, size)
                    continue
                if shard is None:
                    file = f"{len(shards):05}"
                    shard = stack.enter_context(ShardWriter(partial, file, tokenizer.end_of_text))
                shard.add(ids, size)
                tokens += len(ids) + 1
                if shard.tokens >= config.shard_tokens:
                    shards.append(shard.finish())
                    shard = None
            done += len(group)
            progress(name, done, tokens)
        if shard is not None:
            shards.append(shard.finish())
        info = SourceInfo(
            shards=shards, heldout=heldout.finish(), duplicates=counts.total() - len(counts)
        )
    if not shards:
        where = ", ".join(source.files) or source.kind
        raise ValueError(
            f"Source {name!r} ({where}) gives no training text: {counts.total():,} documents read, "
            f"{info.heldout.documents:,} of them held out."
        )
    partial.replace(folder / name)
    return info
