"""What is in a prepared folder, and in one of its samples? Tables for a terminal."""

from collections.abc import Sequence
from pathlib import Path

from gnano.data import Manifest, Sample
from gnano.data.file_search import skipped_notice
from gnano.data.manifest import bad_records
from gnano.data.split import nothing_held_out
from gnano.tokenizer import Tokenizer

BAR = 14  # letters of the longest bar
EIGHTHS = " ▏▎▍▌▋▊▉█"


def describe_data(folder: Path) -> str:
    """The folder's manifest: sources, mix, what was dropped, and how long documents are."""
    manifest = Manifest.load(folder)
    sources = manifest.sources
    whole = sum(manifest.weights.values())
    rows = [
        (
            name,
            f"{manifest.weights[name] / whole:.1%}",
            f"{source.documents:,}",
            f"{source.tokens:,}",
            f"{source.bytes / max(source.tokens, 1):.2f}",
            f"{source.heldout_tokens:,}",
            f"{len(source.shards):,}",
            _dropped(source.dropped),
        )
        for name, source in sources.items()
    ]
    total = sum(source.tokens for source in sources.values())
    head = ("source", "share", "documents", "tokens", "bytes/token", "held out", "shards")
    lines = [
        f"{folder}: {total:,} training tokens, {manifest.tokenizer['name']} tokenizer of "
        f"{manifest.tokenizer['vocab_size']:,}, fingerprint {manifest.fingerprint[:12]}",
        *([] if manifest.complete else [_unfinished(manifest)]),
        "",
        *_table([(*head, "dropped"), *rows]),
        "",
        *_table(_histogram({name: _lengths(manifest, name) for name in sources}), numbers=False),
    ]
    lines += nothing_held_out(folder, manifest)
    for name, plan in manifest.plan.sources.items():
        _, bad = bad_records(plan, sources[name].tasks)
        lines += [f"{name}: {bad}"] if bad else []
        if plan.commit:
            where = f"{plan.repo} {plan.config}".strip()
            lines.append(f"{name}: {where}, {plan.split} at commit {plan.commit[:12]}")
    lines += [f"{name}: {skipped_notice(left)}" for name, left in manifest.skipped.items()]
    return "\n".join(lines)


def describe_sample(sample: Sample, tokenizer: Tokenizer) -> str:
    """Where a sample lies, and its text with a line at each document's border."""
    lines = [
        f"sample {sample.number:,}: source {sample.source}, epoch {sample.epoch}, "
        f"shard {sample.shard}, row {sample.row:,} of {sample.rows:,}; {sample.tokens:,} tokens, "
        f"{len(sample.pieces)} document{'s' * (len(sample.pieces) != 1)}"
    ]
    for piece in sample.pieces:
        end = piece.begin + len(piece.ids)
        part = "whole" if (piece.begin, end) == (0, piece.length) else f"{piece.begin:,}–{end:,}"
        lines.append(
            f"── document {piece.document:,} of {piece.documents:,}, tokens {part} "
            f"of {piece.length:,} ".ljust(72, "─")
        )
        lines.append(tokenizer.decode(piece.ids.tolist()))
    return "\n".join(lines)


def _unfinished(manifest: Manifest) -> str:
    open_ = [name for name, source in manifest.sources.items() if not source.complete]
    return (
        f"Not complete yet ({', '.join(open_)}): run the same `gnano prepare` to go on; "
        f"`gnano pretrain` may start and waits for what it needs."
    )


def _dropped(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {why}" for why, count in counts.items() if count) or "none"


def _lengths(manifest: Manifest, name: str) -> list[int]:
    columns = zip(*(task.lengths for task in manifest.sources[name].tasks), strict=True)
    return [sum(column) for column in columns]


def _histogram(lengths: dict[str, list[int]]) -> list[tuple[str, ...]]:
    """Shares of the documents by length, a row for each power of two."""
    used = [n for counts in lengths.values() for n, count in enumerate(counts) if count]
    rows = [("tokens in a document", *lengths)]
    for n in range(min(used, default=0), max(used, default=-1) + 1):
        shares = [counts[n] / max(sum(counts), 1) if counts else 0 for counts in lengths.values()]
        rows.append((f"{2**n:,} – {2 ** (n + 1) - 1:,}", *map(_bar, shares)))
    return rows


def _bar(share: float) -> str:
    whole, eighths = divmod(round(share * BAR * 8), 8)
    bar = EIGHTHS[-1] * whole + (EIGHTHS[eighths] if eighths else "")
    return f"{share:6.1%} {bar:<{BAR}}"


def _table(rows: Sequence[tuple[str, ...]], numbers: bool = True) -> list[str]:
    """Columns as wide as they need: numbers to the right, between a name and a remark."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = range(1, len(widths) - 1) if numbers else ()
    return [
        "  ".join(
            f"{text:>{width}}" if n in right else f"{text:<{width}}"
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
