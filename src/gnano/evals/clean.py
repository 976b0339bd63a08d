"""What is a score worth where the model has seen some of the items? It, and that of the others."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from gnano.data import Corpus, NGrams
from gnano.evals.contamination import Overlap, find_contamination
from gnano.evals.gathering import Sheet
from gnano.evals.scores import Likelihoods, Score, score

Answered = tuple[Sheet, Sequence[Likelihoods]]  # a task's items, and what a model found of each


def with_overlap(
    answered: Sequence[Answered], corpus: Corpus, show: Callable[[str], None] = lambda _: None
) -> list[Score]:
    """The score of each task, with how many of its items stand in the training shards.

    The shards are read once, for the items of all tasks.
    """
    items = [item.text for sheet, _ in answered for item in sheet.items]
    overlap = find_contamination(corpus, items, lambda text: show(f"training shards: {text}"))
    scores, first = [], 0
    for sheet, found in answered:
        scores.append(_told(sheet, found, overlap, first))
        first += len(sheet.items)
    return scores


def overlap_line(one: Score) -> str:
    """For a terminal."""
    assert one.overlap is not None
    found, checked = one.overlap["found"], one.overlap["checked"]
    line = f"{found:,} of its {checked:,} items of 13 words or more stand in the training shards"
    if clean := one.overlap["clean"]:
        name = "acc_norm" if one.acc_norm else "acc"
        line += f"; {name} {Score.from_dict(clean).main} without them"
    return line


def _told(sheet: Sheet, found: Sequence[Likelihoods], overlap: Overlap, first: int) -> Score:
    """The items of this task are those from `first` on."""
    own = range(first, first + len(sheet.items))
    seen = {number - first for number in overlap.found if number in own}
    rest = [number for number in range(len(sheet.items)) if number not in seen]
    examples = [e for e in overlap.examples if e.item in own]
    told = {
        "checked": len(NGrams([item.text for item in sheet.items]).items),
        "found": len(seen),
        "examples": [asdict(replace(one, item=one.item - first)) for one in examples],
        "clean": None,
    }
    if seen and rest:
        part = replace(sheet, items=tuple(sheet.items[number] for number in rest))
        told["clean"] = score(part, [found[number] for number in rest]).as_dict()
    return replace(score(sheet, found), overlap=told)
