"""A budget selects the first tasks of its source, with their held-out text."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.data.conftest import LETTERS, numbered, parts, some_texts, with_source

from gnano.data.manifest import Manifest, is_heldout
from gnano.data.prepare.pipeline import prepare
from gnano.data.readers import Document
from gnano.tokenizer.hf_tokenizer import load_tokenizer


@pytest.fixture
def eight_tasks(make, small_tasks):
    """A configuration of one source of eight tasks, and the texts of these tasks in order."""
    files = parts(some_texts("abcdefgh", 400), 8)
    config = make(a=files, heldout=0.2)
    prepare(replace(config, folder=config.folder + "-all"))
    plan = Manifest.load(Path(config.folder + "-all")).plan
    return config, [files[file.name] for (file,) in plan.sources["a"].tasks]


def tokens_of(done, texts):
    """Return the number of training tokens of these texts."""
    kept = [text for text in texts if not is_heldout(Document(text), 0.2)]
    return sum(len(done.tokenizer.encode(text)) + 1 for text in kept)


@pytest.mark.parametrize("needed", [1, 3, 7])
def test_a_budget_ends_with_the_task_that_reaches_it(eight_tasks, prepared, needed):
    config, tasks = eight_tasks
    all_prepared = prepared(replace(config, folder=config.folder + "-all"))
    sizes = [tokens_of(all_prepared, texts) for texts in tasks]
    for number, budget in enumerate((sum(sizes[: needed - 1]) + 1, sum(sizes[:needed]))):
        if needed == 1 and number == 0:
            continue  # ends in the first file: test_a_budget_ends_with_the_document_that_reaches_it
        wanted = with_source(config, "a", max_tokens=budget)
        done = prepared(replace(wanted, folder=f"{config.folder}-{number}"))
        both = done.training_documents("a"), done.heldout_documents("a")
        expected = [text for texts in tasks[:needed] for text in texts]
        assert sorted(both[0] + both[1]) == sorted(expected)
        info = Manifest.load(done.folder).sources["a"]
        assert len(info.tasks) == needed and info.complete
        assert info.tokens == sum(sizes[:needed])


def test_files_that_the_budget_does_not_need_are_not_read(eight_tasks):
    config, tasks = eight_tasks
    done = Path(config.folder + "-all")
    files = Manifest.load(done).plan.sources["a"].tasks
    for (file,) in files[3:]:
        path = Path(config.sources["a"].files[0], file.name)
        path.write_text("{broken" + path.read_text()[7:])  # of the same size
    tokenizer = load_tokenizer(done)
    budget = sum(len(tokenizer.encode(text)) + 1 for texts in tasks[:2] for text in texts)
    # of the first two tasks some is held out, so that a third is needed
    manifest = prepare(with_source(config, "a", max_tokens=budget))
    assert len(manifest.sources["a"].tasks) == 3


def test_held_out_text_of_a_smaller_budget_is_a_prefix_of_that_of_a_larger_one(make, prepared):
    sources = {name: parts(some_texts(letters, 240), 6) for name, letters in LETTERS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnano.data.source_files.MIN_TASK_BYTES", 1)
        held = []
        for budget in (500, 5_000, 9_000, 0):
            config = make(str(budget), heldout=0.2, **sources)
            for name in sources:
                config = with_source(config, name, max_tokens=budget)
            done = prepared(config)
            held.append({name: done.heldout_documents(name) for name in sources})
    for small, large in pairwise(held):
        for name in sources:
            assert len(small[name]) < len(large[name])
            assert large[name][: len(small[name])] == small[name]


def test_held_out_texts_do_not_depend_on_sources_and_budgets(make, prepared):
    texts = some_texts("abcdefgh", 300)
    other = some_texts("ijklmnop", 100)
    configs = [
        make("one", a=texts, heldout=0.2),
        make("two", b=other, a=texts[::-1], heldout=0.2),
        make("three", a=parts(texts + other, 5), b=[*texts, *numbered(0, 9)], heldout=0.2),
    ]
    for config in configs:
        done = prepared(config)
        for name in config.sources:
            assert all(is_heldout(Document(t), 0.2) for t in done.heldout_documents(name))
            assert not any(is_heldout(Document(t), 0.2) for t in done.training_documents(name))


def test_a_source_without_training_text_is_reported_with_its_counts(make):
    texts = [t for t in some_texts("abcdefgh", 300) if is_heldout(Document(t), 0.1)]
    config = make(a=["x", "y", *texts, *texts], heldout=0.1)
    config = with_source(config, "a", min_chars=2)
    message = (
        rf"'a'.*no training text: {2 * len(texts) + 2} documents read, 2 short, "
        rf"{len(texts)} repeated, {len(texts)} of them held out"
    )
    with pytest.raises(ValueError, match=message):
        prepare(config)


def test_sources_of_very_different_sizes_are_all_complete(make, small_tasks):
    manifest = prepare(
        make(
            a=parts(some_texts("abcdefgh", 120), 12),
            b=some_texts("ijklmnop", 10),
            c=parts(some_texts("qrstuvwx", 90), 3),
            heldout=0,
        )
    )
    assert {name: len(info.tasks) for name, info in manifest.sources.items()} == {
        "a": 12,
        "b": 1,
        "c": 3,
    }
    assert manifest.complete
