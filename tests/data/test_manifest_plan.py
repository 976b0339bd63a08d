"""The plan contains everything that affects the bytes of the shards, and nothing else."""

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis.strategies import composite, integers, lists, sampled_from

from gnano.data.manifest import Manifest, ShardPlan, SourcePlan
from gnano.data.source_files import InputFile

ENDINGS = ["txt", "parquet", "jsonl.gz"]


def source_plan(tasks, **changes):
    return SourcePlan(
        **{
            "kind": "files",
            "repo": "",
            "config": "",
            "split": "train",
            "revision": "main",
            "commit": "",
            "column": "text",
            "max_tokens": 0,
            "max_bytes": 0,
            "min_chars": 1,
            "max_chars": 0,
            "tasks": tuple(tasks),
            **changes,
        }
    )


def one_file(number, size=100, ending="txt"):
    return (InputFile(f"{number}.{ending}", size, f"id{number}"),)


def estimate(tasks):
    """Return the expected tokens of these tasks."""
    return source_plan(tasks).estimate()[1]


def plan_of(**sources):
    return ShardPlan(
        tokenizer="gpt2", heldout=0.1, shard_tokens=100, decontaminate=(), sources=sources
    )


@composite
def plans(draw):
    sources = {}
    for name in "abcd"[: draw(integers(1, 4))]:
        sizes = draw(lists(integers(1, 10_000), min_size=1, max_size=12))
        ending = draw(sampled_from(ENDINGS))
        tasks = [one_file(n, size, ending) for n, size in enumerate(sizes)]
        sources[name] = source_plan(tasks, max_tokens=draw(integers(0, 20_000)))
    return plan_of(**sources)


@settings(deadline=None)
@given(plan=plans())
def test_the_sequence_contains_every_task_once_in_each_sources_order(plan):
    sequence = list(plan.iter_tasks())
    assert sequence == list(plan.iter_tasks())
    for name, source in plan.sources.items():
        assert [task for s, task in sequence if s == name] == list(range(len(source.tasks)))
    assert len(sequence) == sum(len(source.tasks) for source in plan.sources.values())


@settings(deadline=None)
@given(counts=lists(integers(1, 30), min_size=2, max_size=4))
def test_the_sources_advance_together(counts):
    names = "abcd"[: len(counts)]
    plan = plan_of(
        **{
            name: source_plan([one_file(n) for n in range(count)])
            for name, count in zip(names, counts, strict=True)
        }
    )
    done: Counter[str] = Counter()
    for name, _ in plan.iter_tasks():
        done[name] += 1
        for (one, of_one), (two, of_two) in product(zip(names, counts, strict=True), repeat=2):
            # a source is never more than one task of each ahead of another
            lead = done[one] / of_one - done[two] / of_two
            assert lead <= 1 / of_one + 1 / of_two


def test_a_source_with_a_budget_ends_when_the_others_do():
    """The budget needs about 10 of 100 equal files."""
    tasks = [one_file(n, 4_000) for n in range(100)]
    budget = 10 * estimate(tasks[:1])
    plan = plan_of(a=source_plan(tasks, max_tokens=budget), b=source_plan(tasks[:10]))
    sequence = list(plan.iter_tasks())
    tenth = sequence.index(("a", 9))
    assert set(sequence[: tenth + 2]) == {(name, n) for name in "ab" for n in range(10)}


@settings(deadline=None)
@given(plan=plans())
def test_the_expected_tasks_are_the_fewest_that_reach_the_expected_tokens(plan):
    for source in plan.sources.values():
        count, tokens = source.estimate()
        assert 1 <= count <= len(source.tasks)
        assert estimate(source.tasks[:count]) >= tokens
        if source.max_tokens:
            assert tokens <= source.max_tokens
            assert count == 1 or estimate(source.tasks[: count - 1]) < source.max_tokens


def test_a_measured_rate_replaces_the_default():
    source = source_plan([one_file(n, 1_000) for n in range(10)], max_tokens=4_000)
    assert source.estimate(0.5)[0] == 8
    assert source.estimate(4)[0] == 1
    assert source.estimate(0.1)[1] == 1_000  # all there is


PLAN = plan_of(
    a=source_plan([one_file(0), one_file(1)]), b=source_plan([one_file(2)], kind="hub", repo="u/n")
)

CHANGES = {
    "tokenizer": "bpe-300",
    "heldout": 0.2,
    "shard_tokens": 101,
    "decontaminate": (InputFile("e.jsonl", 5, "id"),),
}

SOURCE_CHANGES = {
    "kind": "generator",
    "repo": "u/m",
    "config": "c",
    "split": "test",
    "revision": "v2",
    "commit": "f" * 40,
    "column": "body",
    "max_tokens": 7,
    "max_bytes": 7,
    "min_chars": 7,
    "max_chars": 7,
}


@pytest.mark.parametrize("key", CHANGES)
def test_each_setting_that_affects_the_bytes_is_in_the_plan(key):
    other = replace(PLAN, **{key: CHANGES[key]})
    assert PLAN.list_differences(other) == [key]
    assert fingerprint(other) != fingerprint(PLAN)


@pytest.mark.parametrize("key", SOURCE_CHANGES)
def test_each_setting_of_a_source_is_in_the_plan(key):
    changed = replace(PLAN.sources["b"], **{key: SOURCE_CHANGES[key]})
    other = replace(PLAN, sources=PLAN.sources | {"b": changed})
    assert PLAN.list_differences(other) == [f"sources.b.{key}"]
    assert fingerprint(other) != fingerprint(PLAN)


FILES = {
    "another name": (InputFile("9.txt", 100, "id0"),),
    "another size": (InputFile("0.txt", 101, "id0"),),
    "another content": (InputFile("0.txt", 100, "other"),),
    "a file more": (*one_file(0), *one_file(9)),
    "none": (),
}


@pytest.mark.parametrize("change", FILES)
def test_changed_files_change_the_plan(change):
    changed = replace(PLAN.sources["a"], tasks=(FILES[change], one_file(1)))
    other = replace(PLAN, sources=PLAN.sources | {"a": changed})
    assert PLAN.list_differences(other) == ["sources.a.files"]
    assert fingerprint(other) != fingerprint(PLAN)


def test_other_sources_or_another_order_change_the_plan():
    a, b = PLAN.sources["a"], PLAN.sources["b"]
    others = [{"a": a}, {"a": a, "b": b, "c": b}, {"b": b, "a": a}, {"a": a, "c": b}]
    prints = {fingerprint(PLAN)}
    for sources in others:
        other = replace(PLAN, sources=sources)
        assert PLAN.list_differences(other) == [f"sources ({', '.join(sources)})"]
        prints.add(fingerprint(other))
    assert len(prints) == 1 + len(others)


def test_all_differences_are_named():
    changed = replace(PLAN.sources["a"], column="body", min_chars=5)
    other = replace(PLAN, heldout=0.3, sources=PLAN.sources | {"a": changed})
    assert PLAN.list_differences(other) == ["heldout", "sources.a.column", "sources.a.min_chars"]
    assert PLAN.list_differences(PLAN) == []


def fingerprint(plan, tokenizer="t"):
    return Manifest(
        plan=plan, tokenizer={"fingerprint": tokenizer}, weights={}, sources={}
    ).fingerprint


def test_the_fingerprint_depends_on_the_tokenizer_not_the_weights():
    assert fingerprint(PLAN, "t") != fingerprint(PLAN, "u")
    weighted = Manifest(
        plan=PLAN, tokenizer={"fingerprint": "t"}, weights={"a": 1.0}, sources={}, complete=True
    )
    assert weighted.fingerprint == fingerprint(PLAN, "t")


def corrected(task, of="a"):
    """Return the plan with another content in one task of a source."""
    tasks = list(PLAN.sources[of].tasks)
    tasks[task] = (tasks[task][0]._replace(size=101, fingerprint="corrected"),)
    changed = replace(PLAN.sources[of], tasks=tuple(tasks))
    return replace(PLAN, sources=PLAN.sources | {of: changed})


def test_a_file_may_be_corrected_until_its_task_is_finished():
    assert PLAN.is_compatible_with(corrected(1), {"a": 1, "b": 1})
    assert PLAN.is_compatible_with(corrected(0, "b"), {"a": 2, "b": 0})
    assert not PLAN.is_compatible_with(corrected(1), {"a": 2, "b": 0})
    assert not PLAN.is_compatible_with(corrected(0), {"a": 1})


def test_only_file_contents_may_change():
    new = corrected(1)
    for key in CHANGES:
        assert not PLAN.is_compatible_with(replace(new, **{key: CHANGES[key]}), {})
    for key in SOURCE_CHANGES:
        changed = replace(new.sources["b"], **{key: SOURCE_CHANGES[key]})
        assert not PLAN.is_compatible_with(replace(new, sources=new.sources | {"b": changed}), {})
    less = replace(PLAN.sources["a"], tasks=PLAN.sources["a"].tasks[:1])
    assert not PLAN.is_compatible_with(replace(PLAN, sources=PLAN.sources | {"a": less}), {})
    assert not PLAN.is_compatible_with(replace(PLAN, sources={"a": PLAN.sources["a"]}), {})
    turned = dict(reversed(PLAN.sources.items()))
    assert not PLAN.is_compatible_with(replace(PLAN, sources=turned), {})
