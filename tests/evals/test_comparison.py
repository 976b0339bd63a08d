"""Models are compared by the same measure, and a result that still stands is not computed again."""

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.evals.conftest import learned, made_items, small_model
from tests.small_models import with_train

from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.evals import comparison
from gnano.evals.comparison import Comparison, TaskColumn, compare_models
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.reference_scores import REFERENCE_MODELS, nearest_models
from gnano.evals.result_store import default_result_path
from gnano.evals.runner import Accuracy, EvalResult, TaskScore, evaluate, write_result
from gnano.model.hf_io import save_model
from gnano.tokenizer.bpe import Tokenizer
from gnano.train.trainer import train

TEXT = "A stone sees the river; no bird takes a letter under the house. A café, 日本 🌍!\n" * 9


@pytest.fixture(scope="session")
def knowing(words: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned the answers by heart."""
    model = learned(small_model(words.vocab_size), words, made_items()[:40], 300)
    folder = tmp_path_factory.mktemp("model") / "knowing"
    words.save(folder)
    save_model(model, folder, words.end_of_text_id)
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Results of folders that are in no run are written below it."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def piqa(tmp_path) -> str:
    """The items that the knowing model knows, as those of a known task."""
    rows = [
        {
            "query": item.contexts[0].removesuffix("\nAnswer:"),
            "choices": list(item.answers),
            "gold": item.gold,
        }
        for item in made_items()[:40]
    ]
    path = tmp_path / "piqa.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture
def asked_for(monkeypatch) -> list[str]:
    """The names of the models that are evaluated, one after the other."""
    names = []

    def counting(subject, *others):
        names.append(subject.name)
        return evaluate(subject, *others)

    monkeypatch.setattr(comparison, "evaluate", counting)
    return names


def newer(path: Path) -> None:
    later = path.stat().st_mtime + 100
    os.utime(path, (later, later))


def made(name: str, tasks: dict[str, TaskScore], **more) -> EvalResult:
    scores = tuple(tasks.values())
    facts = {"folder": name, "parameters": 1_000_000, "tokens": 1_000_000, **more}
    return EvalResult(name=name, scores=scores, **facts)


def test_who_knows_the_answers_is_the_best_by_more_than_two_standard_errors(
    knowing, saved_model, piqa
):
    found = compare_models([saved_model, knowing], EvalConfig(files=(piqa,)))
    (column,) = found.columns
    by_name = {model.name: column.accuracy_of(model).value for model in found.models}
    assert by_name["knowing"] > 0.9 > 0.6 > by_name["random"]
    (difference,) = found.differences
    assert difference.value == by_name["random"] - by_name["knowing"]
    assert difference.is_significant
    assert column.metric == "acc_norm" and column.items == 40 and column.chance == 0.25


def test_a_model_is_not_clearly_better_than_its_copy(knowing, piqa, tmp_path):
    copy = shutil.copytree(knowing, tmp_path / "copy")
    (difference,) = compare_models([knowing, copy], EvalConfig(files=(piqa,))).differences
    assert difference.value == 0 and not difference.is_significant


def difference(items: int, *right: int):
    """Between two models that are right so many times."""
    models = []
    for name, count in zip("ab", right, strict=True):
        one = Accuracy.from_counts(count, items)
        score = TaskScore(
            task="mine", title="", items=items, shots=0, chance=0.5, acc=one, acc_norm=one
        )
        models.append(made(name, {"mine": score}))
    (found,) = Comparison(
        models=tuple(models),
        columns=(TaskColumn("mine", "", "acc_norm", items),),
        published=(),
        texts=(),
        notes=(),
    ).differences
    return found


def test_equal_models_are_rarely_told_apart_and_a_far_better_one_always():
    """Of two standard errors a share of some 5 % is expected by chance."""
    draw = random.Random(0)

    def clear(*shares):
        return difference(
            200, *(sum(draw.random() < s for _ in range(200)) for s in shares)
        ).is_significant

    assert 0.02 < sum(clear(0.6, 0.6) for _ in range(500)) / 500 < 0.08
    assert all(clear(0.6, 0.9) for _ in range(50))


def test_one_item_right_against_one_wrong_proves_nothing_and_a_hundred_do():
    assert not difference(1, 1, 0).is_significant
    assert difference(100, 100, 0).is_significant


def test_a_result_of_the_same_settings_is_used_again(knowing, saved_model, piqa, asked_for):
    asked = EvalConfig(files=(piqa,), limit=20)
    first = compare_models([knowing, saved_model], asked)
    assert asked_for == ["knowing", "random"]
    notes: list[str] = []
    again = compare_models(
        [knowing, saved_model], replace(asked, batch_size=7), on_note=notes.append
    )
    assert again == first and len(asked_for) == 2
    assert notes == ["knowing: as saved", "random: as saved"]


def test_another_limit_is_asked_anew_and_takes_nobodys_place(knowing, piqa, asked_for):
    whole, part = EvalConfig(files=(piqa,)), EvalConfig(files=(piqa,), limit=10)
    write_result(one := evaluate(load_eval_model(knowing), whole), default_result_path(one))
    for asked, items in [(whole, 40), (part, 10), (whole, 40), (part, 10)]:
        (column,) = compare_models([knowing], asked).columns
        assert column.items == items
    assert asked_for == ["knowing"]  # once for the part, and of the whole what eval had saved


@pytest.mark.parametrize("what", ["weights", "items"])
def test_newer_weights_or_items_are_asked_anew(knowing, piqa, asked_for, tmp_path, what):
    folder = shutil.copytree(knowing, tmp_path / "copy")
    asked = EvalConfig(files=(f"mine={piqa}",))
    compare_models([folder], asked)
    newer(folder / "model.safetensors" if what == "weights" else Path(piqa))
    compare_models([folder], asked)
    assert len(asked_for) == 2


def test_weights_kept_in_fewer_bits_are_another_model(knowing, piqa, asked_for):
    asked = EvalConfig(files=(piqa,), limit=5)
    for loading in (LoadConfig(), LoadConfig(quant="int8"), LoadConfig(quant="int8")):
        compare_models([knowing], asked, loading)
    assert len(asked_for) == 2


def test_a_result_of_another_folder_of_that_name_is_not_taken_for_this_one(
    knowing, saved_model, piqa, asked_for, tmp_path
):
    other = shutil.copytree(saved_model, tmp_path / "other/knowing")
    asked = EvalConfig(files=(piqa,), limit=20)
    compare_models([knowing], asked)
    found = compare_models([other, knowing], asked)
    assert len(asked_for) == 2  # theirs lie side by side, told apart by the folder
    assert [model.name for model in found.models] == [str(other), str(knowing)]
    (column,) = found.columns
    assert column.accuracy_of(found.models[0]).value < column.accuracy_of(found.models[1]).value


def test_with_nothing_asked_saved_results_are_compared_as_they_are(
    knowing, saved_model, piqa, asked_for
):
    for folder in (knowing, saved_model):
        compare_models([folder], EvalConfig(files=(piqa,), limit=20))
    asked_for.clear()
    found = compare_models([knowing, saved_model], EvalConfig())
    assert asked_for == [] and found.columns[0].items == 20


def test_a_task_of_which_the_items_differ_is_left_out_and_told(knowing, saved_model, piqa):
    more = f"more={piqa}"
    asked = EvalConfig(files=(piqa, f"mine={piqa}", more), limit=20)
    compare_models([knowing], asked)
    one = evaluate(load_eval_model(saved_model), replace(asked, files=(piqa, f"mine={piqa}")))
    scores = tuple(replace(s, items=10) if s.task == "piqa" else s for s in one.scores)
    write_result(replace(one, scores=scores), default_result_path(one))
    found = compare_models([knowing, saved_model], EvalConfig())
    assert [column.task for column in found.columns] == ["mine"]
    told = "\n".join(found.notes)
    assert "PIQA is not compared" in told and "more is not compared" in told
    assert "knowing 20 of piqa.jsonl; random 10 of piqa.jsonl" in told
    assert "knowing 20 of piqa.jsonl; random none" in told


def test_a_model_of_another_kind_is_measured_on_the_same_bytes(knowing, pythia, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    found = compare_models(
        [knowing, pythia], EvalConfig(tasks=("none",), text=(tmp_path / "text.txt",))
    )
    assert found.texts == ("text.txt",) and not found.columns and not found.published
    assert {model.bits[0].bytes for model in found.models} == {len(TEXT.encode())}
    assert found.models[1].tokens is None and found.models[1].bits[0].tokens > 0


@pytest.fixture
def run(recipe, tmp_path) -> Path:
    small = with_train(replace(recipe), steps=4, eval_every=0, save_every=2)
    return train(small, tmp_path / "run").run


def test_checkpoints_of_a_run_are_compared_on_its_held_out_text_and_others_are_not(
    run, saved_model, piqa
):
    checkpoints = sorted((run / "checkpoints").iterdir())
    asked = EvalConfig(files=(piqa,), limit=5)
    found = compare_models(checkpoints, asked)
    assert found.texts == ("left", "right")
    assert [found.bits_per_byte(model) for model in found.models] == pytest.approx(
        [model.bits_per_byte for model in found.models]
    )
    assert [model.tokens for model in found.models] == [2 * 512, 4 * 512]
    assert {path.name for path in (run / "evals").iterdir()} == {
        f"{path.name}.json" for path in checkpoints
    }
    mixed = compare_models([*checkpoints, saved_model], asked)
    assert mixed.texts == () and any("Bits per byte" in note for note in mixed.notes)


def test_a_text_for_all_is_compared_alone_where_some_have_held_out_text_of_their_own(
    run, saved_model, tmp_path
):
    (tmp_path / "text.txt").write_text(TEXT)
    asked = EvalConfig(tasks=("none",), text=(tmp_path / "text.txt",))
    found = compare_models([run, saved_model], asked)
    assert found.texts == ("text.txt",)
    for model in found.models:
        (part,) = [part for part in model.bits if part.source == "text.txt"]
        assert found.bits_per_byte(model) == pytest.approx(part.bits_per_byte)


def test_what_cannot_be_reached_is_told_once(knowing, saved_model, piqa):
    """For whatever reason tasks are missing, it is one sentence for all of them and all models."""
    for folder in (knowing, saved_model):
        one = evaluate(load_eval_model(folder), EvalConfig(files=(piqa,), limit=5))
        away = dict.fromkeys(("hellaswag", "boolq"), "No connection.")
        write_result(replace(one, skipped=away), default_result_path(one))
    found = compare_models([knowing, saved_model], EvalConfig())
    assert "hellaswag, boolq left out: No connection." in found.notes
    assert sum("No connection" in note for note in found.notes) == 1


def test_the_run_may_be_moved_with_its_results(run, piqa, asked_for, tmp_path):
    asked = EvalConfig(files=(piqa,), limit=5)
    compare_models([run], asked)
    shutil.move(run, tmp_path / "elsewhere")
    compare_models([tmp_path / "elsewhere"], asked)
    assert len(asked_for) == 1


def test_published_rows_are_those_of_the_asked_tasks(knowing, piqa):
    found = compare_models([knowing], EvalConfig(files=(piqa,), limit=5))
    assert len(found.published) == comparison.MAX_REFERENCE_MODELS
    assert all("piqa" in row.scores for row in found.published)
    everyone = compare_models([knowing], EvalConfig(files=(piqa,), limit=5), all_published=True)
    names = {row.name for row in everyone.published}
    assert names == {row.name for row in REFERENCE_MODELS if "piqa" in row.scores}
    assert names > {row.name for row in found.published}
    assert (
        compare_models([knowing], EvalConfig(files=(piqa,), limit=5), published=False).published
        == ()
    )
    own = compare_models([knowing], EvalConfig(files=(f"mine={piqa}",), limit=5))
    assert own.published == () and [column.title for column in own.columns] == ["mine"]


def test_published_rows_stand_by_tokens(knowing, piqa):
    found = compare_models([knowing], EvalConfig(files=(piqa,), limit=5), all_published=True)
    counts = [row.tokens or float("inf") for row in found.published]
    assert counts == sorted(counts) and len(counts) > comparison.MAX_REFERENCE_MODELS


def test_scores_without_shots_do_not_stand_beside_those_with_some(knowing, piqa):
    found = compare_models([knowing], EvalConfig(files=(piqa,), limit=5, shots=1))
    assert found.published == () and found.columns[0].shots == 1
    assert any("no published scores of 1 shots" in note for note in found.notes)


@pytest.mark.parametrize(
    "row", [row for row in REFERENCE_MODELS if row.tokens], ids=lambda row: row.name
)
def test_nothing_is_nearer_to_a_published_model_than_itself(row):
    assert nearest_models(REFERENCE_MODELS, [(row.parameters, row.tokens)], 2).count(row) == 1
    assert row in nearest_models(
        REFERENCE_MODELS, [(10**6, 10**6), (row.parameters, row.tokens)], 2
    )


def test_a_score_by_the_other_accuracy_says_so():
    column = TaskColumn("arc_easy", "ARC-Easy", "acc_norm")
    by_name = {row.name: column.reference_score(row) for row in REFERENCE_MODELS}
    assert by_name["Pythia-160M"] == (0.432, "acc")
    assert by_name["Pythia-1B"] == (0.4899, "acc_norm")
    assert by_name["SmolLM-135M"] is None


def test_without_a_model_the_published_scores_stand_alone():
    found = compare_models([], EvalConfig(tasks=("hellaswag",)))
    assert found.models == () and [column.title for column in found.columns] == ["HellaSwag"]
    assert {row.name for row in found.published} == {
        row.name for row in REFERENCE_MODELS if "hellaswag" in row.scores
    }
    assert len(compare_models([], EvalConfig()).published) == len(REFERENCE_MODELS)


@pytest.mark.parametrize(
    ("asked", "wrong"), [(("helaswag",), "no task 'helaswag'"), (("none",), "nothing to show")]
)
def test_what_nobody_has_published_is_told(asked, wrong):
    with pytest.raises(ValueError, match=wrong):
        compare_models([], EvalConfig(tasks=asked))


def test_a_wrong_path_is_told_before_anything_is_computed(knowing, piqa, asked_for, tmp_path):
    with pytest.raises(OSError, match="no checkpoint"):
        compare_models([knowing, tmp_path / "nothing"], EvalConfig(files=(piqa,)))
    with pytest.raises(ValueError, match="named twice"):
        compare_models([knowing, knowing], EvalConfig(files=(piqa,)))
    assert asked_for == []


def test_how_far_it_is_says_which_model_of_how_many(knowing, saved_model, piqa):
    shown: list[str] = []
    compare_models(
        [knowing, saved_model], EvalConfig(files=(piqa,), limit=5), on_progress=shown.append
    )
    assert shown[0] == f"model 1 of 2 · {knowing} · loading"
    assert shown[-1].startswith(f"model 2 of 2 · {saved_model} · PIQA: ")
    assert sum(text.startswith("model 1 of 2") for text in shown) > 2


def test_json_holds_the_same_numbers(knowing, saved_model, piqa):
    found = compare_models([knowing, saved_model], EvalConfig(files=(piqa,), limit=20))
    told = json.loads(found.to_json())
    for model, row in zip(found.models, told["models"], strict=True):
        assert EvalResult.from_dict(row) == model
    assert told["differences"][0]["value"] == found.differences[0].value
    assert [row["name"] for row in told["published"]] == [row.name for row in found.published]
