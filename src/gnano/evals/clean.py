"""What is a score worth where the model has seen some of the items? It, and that of the others."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from gnano.data import Corpus
from gnano.evals.gathering import Sheet
from gnano.evals.scores import Likelihoods, Score, score


def with_overlap(
    whole: Score,
    sheet: Sheet,
    found: Sequence[Likelihoods],
    corpus: Corpus,
    show: Callable[[str], None] = lambda _: None,
) -> Score:
    """The score, with how many of its items stand in the training shards, and that of the rest."""
    from gnano.evals.contamination import find_contamination

    overlap = find_contamination(
        corpus, [item.text for item in sheet.items], lambda text: show(f"{sheet.title}: {text}")
    )
    seen = set(overlap.found)
    rest = [number for number in range(len(sheet.items)) if number not in seen]
    told = {
        "checked": overlap.checked,
        "found": len(seen),
        "examples": [asdict(example) for example in overlap.examples],
        "clean": None,
    }
    if seen and rest:
        part = replace(sheet, items=tuple(sheet.items[number] for number in rest))
        told["clean"] = score(part, [found[number] for number in rest]).as_dict()
    return replace(whole, overlap=told)


def overlap_line(one: Score) -> str:
    assert one.overlap is not None
    found, checked = one.overlap["found"], one.overlap["checked"]
    line = f"{found:,} of {checked:,} items with 13 words or more stand in the training shards"
    if clean := one.overlap["clean"]:
        best = Score.from_dict(clean).main
        name = "acc_norm" if one.acc_norm else "acc"
        line += f"; {name} {best} without them"
    return line
