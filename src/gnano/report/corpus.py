"""Describes prepared data and one of its samples, as text for a terminal."""

from pathlib import Path

from gnano.data.file_search import format_skipped_files
from gnano.data.looking import SampleDetails
from gnano.data.manifest import Manifest, summarize_bad_records
from gnano.data.split import warn_empty_heldout
from gnano.report.tables import align_columns
from gnano.tokenizer.bpe import Tokenizer

BAR_WIDTH = 14  # characters of the longest bar
BAR_BLOCKS = " ▏▎▍▌▋▊▉█"


def describe_data(folder: Path) -> str:
    """Describe a folder by its manifest: sources, mix, dropped documents, and document lengths."""
    manifest = Manifest.load(folder)
    sources = manifest.sources
    total_weight = sum(manifest.weights.values())
    rows = [
        (
            name,
            f"{manifest.weights[name] / total_weight:.1%}",
            f"{source.documents:,}",
            f"{source.tokens:,}",
            f"{source.bytes / max(source.tokens, 1):.2f}",
            f"{source.heldout_tokens:,}",
            f"{len(source.shards):,}",
            ", ".join(f"{n:,} {why}" for why, n in source.dropped.items() if n) or "none",
        )
        for name, source in sources.items()
    ]
    total = sum(source.tokens for source in sources.values())
    head = ("source", "share", "documents", "tokens", "bytes/token", "held out", "shards")
    lines = [
        f"{folder}: {total:,} training tokens, {manifest.tokenizer['name']} tokenizer of "
        f"{manifest.tokenizer['vocab_size']:,}, fingerprint {manifest.fingerprint[:12]}",
        *([] if manifest.complete else [_incomplete_notice(manifest)]),
        "",
        *align_columns([(*head, "dropped"), *rows], right=range(1, len(head))),
        "",
        *align_columns(
            _length_histogram({name: _document_lengths(manifest, name) for name in sources})
        ),
    ]
    lines += warn_empty_heldout(folder, manifest)
    for name, plan in manifest.plan.sources.items():
        _, bad = summarize_bad_records(plan, sources[name].tasks)
        lines += [f"{name}: {bad}"] if bad else []
        if plan.commit:
            where = f"{plan.repo} {plan.config}".strip()
            lines.append(f"{name}: {where}, {plan.split} at commit {plan.commit[:12]}")
    lines += [f"{name}: {format_skipped_files(left)}" for name, left in manifest.skipped.items()]
    return "\n".join(lines)


def describe_sample(sample: SampleDetails, tokenizer: Tokenizer) -> str:
    """Return where a sample is stored, and its text with a line between documents."""
    lines = [
        f"sample {sample.number:,}: source {sample.source}, epoch {sample.epoch}, "
        f"shard {sample.shard}, row {sample.row:,} of {sample.row_count:,}; {sample.tokens:,} tokens, "
        f"{len(sample.documents)} document{'s' * (len(sample.documents) != 1)}"
    ]
    for piece in sample.documents:
        end = piece.offset + len(piece.ids)
        part = (
            "whole"
            if (piece.offset, end) == (0, piece.document_tokens)
            else f"{piece.offset:,}–{end:,}"
        )
        lines.append(
            f"── document {piece.document_index:,} of {piece.document_count:,}, tokens {part} "
            f"of {piece.document_tokens:,} ".ljust(72, "─")
        )
        lines.append(tokenizer.decode(piece.ids.tolist()))
    return "\n".join(lines)


def _incomplete_notice(manifest: Manifest) -> str:
    incomplete = [name for name, source in manifest.sources.items() if not source.complete]
    return (
        f"Not complete yet ({', '.join(incomplete)}): run the same `gnano prepare` to go on; "
        f"`gnano pretrain` may start and waits for what it needs."
    )


def _document_lengths(manifest: Manifest, name: str) -> list[int]:
    columns = zip(*(task.lengths for task in manifest.sources[name].tasks), strict=True)
    return [sum(column) for column in columns]


def _length_histogram(lengths: dict[str, list[int]]) -> list[tuple[str, ...]]:
    """Return the shares of the documents by length, a row for each power of two."""
    used = [n for counts in lengths.values() for n, count in enumerate(counts) if count]
    rows = [("tokens in a document", *lengths)]
    for n in range(min(used, default=0), max(used, default=-1) + 1):
        shares = [counts[n] / max(sum(counts), 1) if counts else 0 for counts in lengths.values()]
        rows.append((f"{2**n:,} – {2 ** (n + 1) - 1:,}", *map(_format_bar, shares)))
    return rows


def _format_bar(share: float) -> str:
    full, eighths = divmod(round(share * BAR_WIDTH * 8), 8)
    bar = BAR_BLOCKS[-1] * full + BAR_BLOCKS[eighths].strip()
    return f"{share:6.1%} {bar:<{BAR_WIDTH}}"
