"""What took hours to measure is not written over by something else."""

from dataclasses import replace
from pathlib import Path

import pytest

from gnano.evals.asked import Asked
from gnano.evals.evaluation import Evaluation, evaluate, write_evaluation
from gnano.evals.saved import result_path, saved_results
from gnano.evals.subject import open_subject
from gnano.infer.loading import Loading


@pytest.fixture
def found(saved_model, tmp_path, monkeypatch) -> Evaluation:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text("A stone sees the river.\n" * 9)
    asked = Asked(tasks=("none",), text=(Path("story.txt"),))
    return evaluate(open_subject(saved_model), asked)


def test_a_result_takes_the_place_of_one_of_the_same_settings_only(found, saved_model, tmp_path):
    other = replace(found, settings={**found.settings, "limit": 7})
    coarse = replace(found, settings={**found.settings, "loading": {"dtype": "", "quant": "int8"}})
    places = []
    for one in (found, other, coarse, found, other):
        places.append(result_path(one))
        write_evaluation(one, places[-1])
    assert places[0].name == "random.json" and places[3:] == places[:2]
    assert len(set(places)) == 3 == len(list((tmp_path / "evals").iterdir()))
    there = dict(saved_results(saved_model, Loading()))
    assert set(there) == set(places[:2]) and there[places[0]] == found


def test_a_file_that_is_no_result_is_written_over(found):
    result_path(found).parent.mkdir()
    result_path(found).write_text("torn")
    assert result_path(found).name == "random.json"


def test_of_another_folder_of_the_same_name_nothing_is_taken_and_nothing_lost(found, saved_model):
    elsewhere = replace(found, folder="/somewhere/else/random")
    write_evaluation(elsewhere, result_path(elsewhere))
    assert result_path(found) != result_path(elsewhere)
    assert dict(saved_results(saved_model, Loading())) == {}
