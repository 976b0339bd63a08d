"""The text of a comparison contains its numbers and fits the terminal."""

import re

import pytest

from gnano.evals.comparison import REFERENCE_MODELS, Comparison, ReferenceModel, TaskColumn
from gnano.evals.comparison_table import format_comparison, format_count
from gnano.evals.eval_tasks import TASKS
from gnano.evals.result_store import Accuracy, BitsPerByte, ModelResult, TaskScore


def model(name: str, bits: float = 1.0, **scores: float) -> ModelResult:
    results = [
        TaskScore(
            task=task,
            title=task,
            items=400,
            shots=0,
            chance=0.25,
            acc=Accuracy(value / 2, 0.01),
            acc_norm=Accuracy(value, 0.02),
        )
        for task, value in scores.items()
    ]
    return ModelResult(
        name=name,
        folder=name,
        parameters=1_050_002_688,
        tokens=13_107_200_000,
        bits=(BitsPerByte("text", bits, 100, 30),),
        scores=tuple(results),
    )


def column(task: str, **more) -> TaskColumn:
    metric = "acc_norm" if TASKS[task].has_acc_norm else "acc"
    return TaskColumn(task, TASKS[task].title, metric, **{"items": 400, "chance": 0.25, **more})


def comparison(models=(), tasks=(), published: tuple[ReferenceModel, ...] = (), texts=()):
    columns = tuple(map(column, tasks))
    return Comparison(
        models=tuple(models), columns=columns, published=published, texts=texts, notes=()
    )


def cells(text: str, heading: str) -> dict[str, str]:
    """Return the cells below a heading, by the name at the start of the line."""
    found = {}
    for block in text.split("\n\n"):
        first, *lines = block.splitlines()
        if heading not in first:
            continue
        at = first.index(heading)
        after = re.search(r"\S", first[at + len(heading) :])
        end = at + len(heading) + after.start() if after else None
        names = re.search(r"\S", first)
        assert names
        for line in lines:
            if name := line[: names.start()].strip():
                found[name] = line[at:end].strip()
    return found


def test_scores_are_below_their_task_and_the_best_is_marked():
    models = [model("a", piqa=0.5, hellaswag=0.3), model("b", piqa=0.6, hellaswag=0.2)]
    text = format_comparison(comparison(models, ["piqa", "hellaswag"]))
    assert cells(text, "PIQA") == {"a": "0.500 ±.020", "b": "0.600 ±.020*", "guessing": "0.250"}
    assert cells(text, "HellaSwag")["a"] == "0.300 ±.020*"
    assert "acc_norm" in text and "400 items" in text


def test_lowest_bits_per_byte_are_marked():
    models = [model("a", bits=1.25), model("b", bits=0.75)]
    text = format_comparison(comparison(models, texts=("text",)))
    assert cells(text, "bits/byte") == {"a": "1.2500", "b": "0.7500*"}
    assert "bits/byte: of text" in text
    assert "bits/byte" not in format_comparison(comparison(models))


def test_equal_scores_are_not_marked():
    text = format_comparison(comparison([model("a", piqa=0.5), model("b", piqa=0.5)], ["piqa"]))
    assert "0.500 ±.020*" not in text


def test_table_shows_acc_where_acc_is_compared():
    text = format_comparison(comparison([model("a", winogrande=0.8)], ["winogrande"]))
    assert cells(text, "WinoGrande")["a"] == "0.400 ±.010" and "acc_norm" not in text


def test_published_rows_name_their_metric_and_source():
    text = format_comparison(comparison([model("a", arc_easy=0.5)], ["arc_easy"], REFERENCE_MODELS))
    table, *_ = text.split("\n\n")
    below = cells(table, "ARC-Easy")
    sources = dict(re.findall(r"^\[(\d+)\] (\S+)$", text, re.MULTILINE))
    assert len(sources) == len(set(sources.values()))
    for row in REFERENCE_MODELS:
        (name,) = [name for name in below if name.rpartition(" [")[0] == row.name]
        assert sources[name.rpartition("[")[2].rstrip("]")] == row.source
        acc, acc_norm = row.scores.get("arc_easy", (None, None))
        expected = f"{acc_norm:.3f}" if acc_norm is not None else f"{acc:.3f} acc" if acc else ""
        assert below[name] == expected
        assert row.note.split(";")[0] in text
    assert "its source has no acc_norm; not comparable" in text


def test_rule_separates_models_and_published_rows():
    lines = format_comparison(comparison([model("a", piqa=0.5)], ["piqa"], REFERENCE_MODELS[:2]))
    above, below = re.split("─{20,}", lines)
    assert "guessing" in above and REFERENCE_MODELS[0].name in below
    assert "─" not in format_comparison(comparison((), ["piqa"], REFERENCE_MODELS[:2]))
    assert "─" not in format_comparison(comparison([model("a", piqa=0.5)], ["piqa"]))


@pytest.mark.parametrize("width", [80, 100, 140, 250])
def test_tables_fit_the_width_and_contain_every_task(width):
    models = [model("a", **dict.fromkeys(TASKS, 0.5)), model("b", **dict.fromkeys(TASKS, 0.4))]
    text = format_comparison(comparison(models, TASKS, REFERENCE_MODELS, texts=("text",)), width)
    for line in text.splitlines():
        assert len(line) <= width or "https://" in line or line.count(" ") < 3
    for task in TASKS:
        below = cells(text, TASKS[task].title)
        assert below["a"].startswith("0.") and below["b"].startswith("0.")
        num_published = sum(task in row.scores for row in REFERENCE_MODELS)
        assert sum(bool(cell) for name, cell in below.items() if "[" in name) == num_published


def test_difference_between_two_models_and_its_significance():
    models = [model("a", piqa=0.5, hellaswag=0.3), model("b", piqa=0.6, hellaswag=0.32)]
    text = format_comparison(comparison(models, ["piqa", "hellaswag"]))
    assert re.search(
        r"PIQA +-0\.100 ±\.028  more than two standard errors: b is better", text
    ) and re.search(r"HellaSwag +-0\.020 ±\.028  within the error", text)
    three = format_comparison(comparison([*models, model("c", piqa=0.1, hellaswag=0.1)], ["piqa"]))
    assert "within the error" not in three and "is better" not in three


def test_long_name_keeps_its_end():
    name = "a-model-of-a-very-long-name-that-no-table-can-hold, step 50,000"
    text = format_comparison(comparison([model(name, piqa=0.5)], ["piqa"]))
    (short,) = [one for one in cells(text, "PIQA") if "step" in one]
    assert len(short) < 40 and name.endswith(short.lstrip("…"))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "?"),
        (512, "512"),
        (4_359_936, "4.36 M"),
        (999_999, "1.00 M"),
        (99_950_000, "100 M"),
        (13_107_200_000, "13.1 B"),
        (299_892_736_000, "300 B"),
        (11_000_000_000_000, "11.0 T"),
    ],
)
def test_counts_have_three_figures(number, text):
    assert format_count(number) == text
