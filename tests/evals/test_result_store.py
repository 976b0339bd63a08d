"""What took hours to measure is not written over by something else."""

from dataclasses import replace
from pathlib import Path

import pytest

from gnano.config.eval_config import EvalConfig
from gnano.config.inference_config import LoadConfig
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.result_store import choose_result_path, load_valid_results
from gnano.evals.runner import EvalResult, evaluate, write_result


@pytest.fixture
def found(saved_model, tmp_path, monkeypatch) -> EvalResult:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text("A stone sees the river.\n" * 9)
    asked = EvalConfig(tasks=("none",), text=(Path("story.txt"),))
    return evaluate(load_eval_model(saved_model), asked)


def test_a_result_takes_the_place_of_one_of_the_same_settings_only(found, saved_model, tmp_path):
    other = replace(found, settings={**found.settings, "limit": 7})
    coarse = replace(found, settings={**found.settings, "loading": {"dtype": "", "quant": "int8"}})
    places = []
    for one in (found, other, coarse, found, other):
        places.append(choose_result_path(one))
        write_result(one, places[-1])
    assert places[0].name == "random.json" and places[3:] == places[:2]
    assert len(set(places)) == 3 == len(list((tmp_path / "evals").iterdir()))
    there = dict(load_valid_results(saved_model, LoadConfig()))
    assert set(there) == set(places[:2]) and there[places[0]] == found


def test_a_file_that_is_no_result_is_written_over(found):
    choose_result_path(found).parent.mkdir()
    choose_result_path(found).write_text("torn")
    assert choose_result_path(found).name == "random.json"


def test_of_another_folder_of_the_same_name_nothing_is_taken_and_nothing_lost(found, saved_model):
    elsewhere = replace(found, folder="/somewhere/else/random")
    write_result(elsewhere, choose_result_path(elsewhere))
    assert choose_result_path(found) != choose_result_path(elsewhere)
    assert dict(load_valid_results(saved_model, LoadConfig())) == {}
