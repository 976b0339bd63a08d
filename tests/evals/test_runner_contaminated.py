"""A score tells which of its items were trained on, and what it is without them."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import write_corpus
from tests.evals.conftest import made_items

from gnano.config.data_config import DataConfig, SourceConfig
from gnano.data.prepare.pipeline import prepare
from gnano.data.tokenized_corpus import TokenizedCorpus
from gnano.evals.eval_tasks import EvalItem, TaskItems
from gnano.evals.runner import TaskScore, format_contamination, score_with_contamination


@pytest.fixture
def corpus(tmp_path: Path, items: list[EvalItem]) -> TokenizedCorpus:
    """Texts among which three of the items stand word for word."""
    write_corpus(tmp_path / "corpus", 40)
    for number in (0, 7, 11):
        file = tmp_path / f"corpus/left/item{number}.txt"
        file.write_text(f"It was said: {items[number].solved_text}, and then nothing was.")
    files = (str(tmp_path / "corpus/left"),)
    sources = {"left": SourceConfig(weight=1.0, files=files)}
    config = DataConfig(
        folder=str(tmp_path / "data"), tokenizer="bpe-300", heldout_fraction=0.0, sources=sources
    )
    prepare(config)
    return TokenizedCorpus(tmp_path / "data")


@pytest.fixture
def items() -> list[EvalItem]:
    return made_items(20)


def test_items_that_stand_in_the_training_shards_are_counted_apart(corpus, items):
    # all that was trained on is right, all else is wrong
    seen = {0, 7, 11}
    found = [
        [(-1.0 if (at == item.gold) == (number in seen) else -9.0, False) for at in range(4)]
        for number, item in enumerate(items)
    ]
    short = TaskItems("short", (EvalItem(("too",), ("short", "for"), 0),))
    sheet = TaskItems("mine", tuple(items))
    alone, told = score_with_contamination(
        [(short, [[(-1.0, False), (-2.0, False)]]), (sheet, found)], corpus
    )
    assert alone.contamination == {"checked": 0, "found": 0, "examples": [], "clean": None}
    assert told.contamination is not None and told.contamination["found"] == 3
    assert told.contamination["checked"] == 20
    assert {example["item"] for example in told.contamination["examples"]} == seen
    assert told.acc.value == pytest.approx(3 / 20)
    clean = TaskScore.from_dict(told.contamination["clean"])
    assert (clean.items, clean.acc.value) == (17, 0)
    assert "3 of its 20 items" in format_contamination(told) and "0.000" in format_contamination(
        told
    )
    assert replace(told, contamination=None).primary == told.primary
