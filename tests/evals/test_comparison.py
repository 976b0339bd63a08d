"""Models are compared by the same measure, and up-to-date results are not computed again."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.evals.conftest import NUM_KNOWN, made_items, write_items
from tests.small_models import with_train

from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.evals import comparison
from gnano.evals.comparison import (
    REFERENCE_MODELS,
    Comparison,
    TaskColumn,
    compare_models,
    nearest_models,
)
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.result_store import (
    Accuracy,
    ModelResult,
    TaskScore,
    default_result_path,
    write_result,
)
from gnano.evals.runner import evaluate
from gnano.model.hf_io import save_model
from gnano.train.trainer import train

TEXT = "A stone sees the river; no bird takes a letter under the house. A café, 日本 🌍!\n" * 9


@pytest.fixture(scope="session")
def trained_dir(trained_model, words, tmp_path_factory) -> Path:
    """A checkpoint folder of the model that knows the answers."""
    folder: Path = tmp_path_factory.mktemp("model") / "trained"
    words.save(folder)
    save_model(trained_model, folder, words.end_of_text_id)
    return folder


@pytest.fixture(autouse=True)
def working_dir(tmp_path, monkeypatch):
    """Results of folders that belong to no run are written below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def piqa(tmp_path) -> str:
    """The items that the trained model knows, in the form of a known task."""
    items = made_items()[:NUM_KNOWN]
    plain = [replace(i, contexts=(i.contexts[0].removesuffix("\nAnswer:"),)) for i in items]
    return str(write_items(tmp_path / "piqa.jsonl", plain))


@pytest.fixture
def evaluated(monkeypatch) -> list[str]:
    """The names of the models that are evaluated, in order."""
    names = []

    def record(model, *others):
        names.append(model.name)
        return evaluate(model, *others)

    monkeypatch.setattr(comparison, "evaluate", record)
    return names


def set_newer(path: Path) -> None:
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))


def test_model_that_knows_the_answers_is_better_by_more_than_two_standard_errors(
    trained_dir, saved_model, piqa
):
    found = compare_models([saved_model, trained_dir], EvalConfig(files=(piqa,)))
    (column,) = found.columns
    by_name = {model.name: column.accuracy_of(model).value for model in found.models}
    assert by_name["trained"] > 0.9 > 0.6 > by_name["random"]
    (difference,) = found.differences
    assert difference.value == by_name["random"] - by_name["trained"]
    assert difference.is_significant
    assert column.metric == "acc_norm" and column.items == 40 and column.chance == 0.25


def test_model_is_not_significantly_better_than_its_copy(trained_dir, piqa, tmp_path):
    copy = shutil.copytree(trained_dir, tmp_path / "copy")
    config = EvalConfig(files=(piqa,), limit=20)
    (difference,) = compare_models([trained_dir, copy], config).differences
    assert difference.value == 0 and not difference.is_significant


def make_difference(items: int, *num_correct: int):
    """Return the difference between two models with these numbers of right answers."""
    models = []
    for name, count in zip("ab", num_correct, strict=True):
        one = Accuracy.from_counts(count, items)
        score = TaskScore(
            task="mine", title="", items=items, shots=0, chance=0.5, acc=one, acc_norm=one
        )
        models.append(ModelResult(name=name, folder=name, parameters=1, tokens=1, scores=(score,)))
    columns = (TaskColumn("mine", "", "acc_norm", items),)
    (found,) = Comparison(
        models=tuple(models), columns=columns, published=(), texts=(), notes=()
    ).differences
    return found


def test_equal_models_rarely_differ_significantly_and_a_far_better_one_always_does():
    """Two standard errors are exceeded by chance in about 5 % of comparisons."""
    rng = random.Random(0)

    def is_significant(*rates):
        counts = (sum(rng.random() < rate for _ in range(200)) for rate in rates)
        return make_difference(200, *counts).is_significant

    assert 0.02 < sum(is_significant(0.6, 0.6) for _ in range(500)) / 500 < 0.08
    assert all(is_significant(0.6, 0.9) for _ in range(50))


def test_difference_of_one_item_is_not_significant_and_of_a_hundred_is():
    assert not make_difference(1, 1, 0).is_significant
    assert make_difference(100, 100, 0).is_significant


def test_result_with_the_same_settings_is_reused(trained_dir, saved_model, piqa, evaluated):
    config = EvalConfig(files=(piqa,), limit=20)
    first = compare_models([trained_dir, saved_model], config)
    assert evaluated == ["trained", "random"]
    notes: list[str] = []
    again = compare_models(
        [trained_dir, saved_model], replace(config, batch_size=7), on_note=notes.append
    )
    assert again == first and len(evaluated) == 2
    assert notes == ["trained: stored result", "random: stored result"]


def test_another_limit_is_evaluated_and_replaces_no_result(trained_dir, piqa, evaluated):
    full, part = EvalConfig(files=(piqa,)), EvalConfig(files=(piqa,), limit=10)
    write_result(one := evaluate(load_eval_model(trained_dir), full), default_result_path(one))
    for config, items in [(full, 40), (part, 10), (full, 40), (part, 10)]:
        (column,) = compare_models([trained_dir], config).columns
        assert column.items == items
    assert evaluated == ["trained"]  # once for the part; the full result had been stored


@pytest.mark.parametrize("changed", ["weights", "items"])
def test_newer_weights_or_items_are_evaluated_again(
    trained_dir, piqa, evaluated, tmp_path, changed
):
    folder = shutil.copytree(trained_dir, tmp_path / "copy")
    config = EvalConfig(files=(f"mine={piqa}",), limit=5)
    compare_models([folder], config)
    set_newer(folder / "model.safetensors" if changed == "weights" else Path(piqa))
    compare_models([folder], config)
    assert len(evaluated) == 2


def test_quantized_weights_are_another_model(trained_dir, piqa, evaluated):
    config = EvalConfig(files=(piqa,), limit=5)
    for loading in (LoadConfig(), LoadConfig(quant="int8"), LoadConfig(quant="int8")):
        compare_models([trained_dir], config, loading)
    assert len(evaluated) == 2


def test_result_of_another_folder_with_the_same_name_is_not_used(
    trained_dir, saved_model, piqa, evaluated, tmp_path
):
    other = shutil.copytree(saved_model, tmp_path / "other/trained")
    config = EvalConfig(files=(piqa,), limit=20)
    compare_models([trained_dir], config)
    found = compare_models([other, trained_dir], config)
    assert len(evaluated) == 2  # both results are stored, distinguished by the folder
    assert [model.name for model in found.models] == [str(other), str(trained_dir)]
    (column,) = found.columns
    assert column.accuracy_of(found.models[0]).value < column.accuracy_of(found.models[1]).value


def test_default_settings_compare_stored_results(trained_dir, saved_model, piqa, evaluated):
    for folder in (trained_dir, saved_model):
        compare_models([folder], EvalConfig(files=(piqa,), limit=20))
    evaluated.clear()
    found = compare_models([trained_dir, saved_model], EvalConfig())
    assert evaluated == [] and found.columns[0].items == 20


def test_task_with_different_items_is_left_out_with_a_note(trained_dir, saved_model, piqa):
    config = EvalConfig(files=(piqa, f"mine={piqa}", f"more={piqa}"), limit=20)
    compare_models([trained_dir], config)
    one = evaluate(load_eval_model(saved_model), replace(config, files=(piqa, f"mine={piqa}")))
    scores = tuple(replace(s, items=10) if s.task == "piqa" else s for s in one.scores)
    write_result(replace(one, scores=scores), default_result_path(one))
    found = compare_models([trained_dir, saved_model], EvalConfig())
    assert [column.task for column in found.columns] == ["mine"]
    notes = "\n".join(found.notes)
    assert "PIQA is not compared" in notes and "more is not compared" in notes
    assert "trained 20 of piqa.jsonl; random 10 of piqa.jsonl" in notes
    assert "trained 20 of piqa.jsonl; random none" in notes


def test_foreign_model_is_measured_on_the_same_bytes(trained_dir, pythia, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    config = EvalConfig(tasks=("none",), text=(tmp_path / "text.txt",))
    found = compare_models([trained_dir, pythia], config)
    assert found.texts == ("text.txt",) and not found.columns and not found.published
    assert {model.bits[0].bytes for model in found.models} == {len(TEXT.encode())}
    assert found.models[1].tokens is None and found.models[1].bits[0].tokens > 0


@pytest.fixture(scope="module")
def finished_run(recipe, tmp_path_factory) -> Path:
    small = with_train(recipe, steps=4, eval_every=0, save_every=2)
    return train(small, tmp_path_factory.mktemp("runs") / "run").run


@pytest.fixture
def run(finished_run, tmp_path) -> Path:
    """A finished run without stored results."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_checkpoints_of_a_run_are_compared_on_its_heldout_text(run, saved_model, piqa):
    checkpoints = sorted((run / "checkpoints").iterdir())
    config = EvalConfig(files=(piqa,), limit=5)
    found = compare_models(checkpoints, config)
    assert found.texts == ("left", "right")
    assert [found.bits_per_byte(model) for model in found.models] == pytest.approx(
        [model.bits_per_byte for model in found.models]
    )
    assert [model.tokens for model in found.models] == [2 * 512, 4 * 512]
    names = {f"{path.name}.json" for path in checkpoints}
    assert {path.name for path in (run / "evals").iterdir()} == names
    mixed = compare_models([*checkpoints, saved_model], config)
    assert mixed.texts == () and any("Bits per byte" in note for note in mixed.notes)


def test_only_the_common_text_is_compared(run, saved_model, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    config = EvalConfig(tasks=("none",), text=(tmp_path / "text.txt",))
    found = compare_models([run, saved_model], config)
    assert found.texts == ("text.txt",)
    for model in found.models:
        (part,) = [part for part in model.bits if part.source == "text.txt"]
        assert found.bits_per_byte(model) == pytest.approx(part.bits_per_byte)


def test_reason_for_skipped_tasks_is_noted_once(trained_dir, saved_model, piqa):
    for folder in (trained_dir, saved_model):
        one = evaluate(load_eval_model(folder), EvalConfig(files=(piqa,), limit=5))
        skipped = dict.fromkeys(("hellaswag", "boolq"), "No connection.")
        write_result(replace(one, skipped=skipped), default_result_path(one))
    found = compare_models([trained_dir, saved_model], EvalConfig())
    assert "hellaswag, boolq skipped: No connection." in found.notes
    assert sum("No connection" in note for note in found.notes) == 1


def test_run_can_be_moved_with_its_results(run, piqa, evaluated, tmp_path):
    config = EvalConfig(files=(piqa,), limit=5)
    compare_models([run], config)
    shutil.move(run, tmp_path / "elsewhere")
    compare_models([tmp_path / "elsewhere"], config)
    assert len(evaluated) == 1


def test_published_rows_are_of_the_compared_tasks_sorted_by_tokens(trained_dir, piqa):
    config = EvalConfig(files=(piqa,), limit=5)
    found = compare_models([trained_dir], config)
    assert len(found.published) == comparison.MAX_REFERENCE_MODELS
    assert all("piqa" in row.scores for row in found.published)
    full = compare_models([trained_dir], config, all_published=True)
    names = {row.name for row in full.published}
    assert names == {row.name for row in REFERENCE_MODELS if "piqa" in row.scores}
    assert names > {row.name for row in found.published}
    counts = [row.tokens or float("inf") for row in full.published]
    assert counts == sorted(counts)
    assert compare_models([trained_dir], config, published=False).published == ()
    custom = compare_models([trained_dir], EvalConfig(files=(f"mine={piqa}",), limit=5))
    assert custom.published == () and [column.title for column in custom.columns] == ["mine"]


def test_published_scores_with_other_shots_are_not_shown(trained_dir, piqa):
    found = compare_models([trained_dir], EvalConfig(files=(piqa,), limit=5, shots=1))
    assert found.published == () and found.columns[0].shots == 1
    assert any("no published scores with 1 shots" in note for note in found.notes)


def test_nearest_model_to_a_published_one_is_itself():
    for row in REFERENCE_MODELS:
        if row.tokens:
            own, other = (
                ModelResult(name="", folder="", parameters=parameters, tokens=tokens)
                for parameters, tokens in ((row.parameters, row.tokens), (10**6, 10**6))
            )
            assert nearest_models(REFERENCE_MODELS, [own], 2).count(row) == 1
            assert row in nearest_models(REFERENCE_MODELS, [other, own], 2)


def test_reference_score_names_its_metric():
    column = TaskColumn("arc_easy", "ARC-Easy", "acc_norm")
    by_name = {row.name: column.reference_score(row) for row in REFERENCE_MODELS}
    assert by_name["Pythia-160M"] == (0.432, "acc")
    assert by_name["Pythia-1B"] == (0.4899, "acc_norm")
    assert by_name["SmolLM-135M"] is None


def test_published_scores_without_a_model():
    found = compare_models([], EvalConfig(tasks=("hellaswag",)))
    assert found.models == () and [column.title for column in found.columns] == ["HellaSwag"]
    assert {row.name for row in found.published} == {
        row.name for row in REFERENCE_MODELS if "hellaswag" in row.scores
    }
    assert len(compare_models([], EvalConfig()).published) == len(REFERENCE_MODELS)


@pytest.mark.parametrize(
    ("tasks", "message"), [(("helaswag",), "no task 'helaswag'"), (("none",), "nothing to show")]
)
def test_nothing_to_compare_is_an_error(tasks, message):
    with pytest.raises(ValueError, match=message):
        compare_models([], EvalConfig(tasks=tasks))


def test_wrong_path_is_an_error_before_anything_is_computed(trained_dir, piqa, evaluated, tmp_path):
    with pytest.raises(OSError, match="no checkpoint"):
        compare_models([trained_dir, tmp_path / "nothing"], EvalConfig(files=(piqa,)))
    with pytest.raises(ValueError, match="named twice"):
        compare_models([trained_dir, trained_dir], EvalConfig(files=(piqa,)))
    assert evaluated == []


def test_progress_names_the_model(trained_dir, saved_model, piqa):
    shown: list[str] = []
    config = EvalConfig(files=(piqa,), limit=5)
    compare_models([trained_dir, saved_model], config, on_progress=shown.append)
    assert shown[0] == f"model 1 of 2 · {trained_dir} · loading"
    assert shown[-1].startswith(f"model 2 of 2 · {saved_model} · PIQA: ")
    assert sum(text.startswith("model 1 of 2") for text in shown) > 2


def test_json_contains_the_same_numbers(trained_dir, saved_model, piqa):
    found = compare_models([trained_dir, saved_model], EvalConfig(files=(piqa,), limit=20))
    content = json.loads(found.to_json())
    for model, row in zip(found.models, content["models"], strict=True):
        assert ModelResult.from_dict(row) == model
    assert content["differences"][0]["value"] == found.differences[0].value
    assert [row["name"] for row in content["published"]] == [row.name for row in found.published]
