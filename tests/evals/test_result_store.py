"""Stored results are not overwritten by results with other settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from gnano.config.inference_config import EvalConfig, LoadConfig
from gnano.evals.model_adapter import load_eval_model
from gnano.evals.result_store import (
    ModelResult,
    choose_result_path,
    load_valid_results,
    write_result,
)
from gnano.evals.runner import evaluate


@pytest.fixture
def result(saved_model, tmp_path, monkeypatch) -> ModelResult:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text("A stone sees the river.\n" * 9)
    config = EvalConfig(tasks=("none",), text=(Path("story.txt"),))
    return evaluate(load_eval_model(saved_model), config)


def test_result_replaces_only_one_with_the_same_settings(result, saved_model, tmp_path):
    other = replace(result, settings={**result.settings, "limit": 7})
    quantized = replace(
        result, settings={**result.settings, "loading": {"dtype": "", "quant": "int8"}}
    )
    paths = []
    for one in (result, other, quantized, result, other):
        paths.append(choose_result_path(one))
        write_result(one, paths[-1])
    assert paths[0].name == "random.json" and paths[3:] == paths[:2]
    assert len(set(paths)) == 3 == len(list((tmp_path / "evals").iterdir()))
    stored = load_valid_results(saved_model, LoadConfig())
    assert len(stored) == 2 and result in stored and other in stored


def test_file_that_is_no_result_is_overwritten(result):
    choose_result_path(result).parent.mkdir()
    choose_result_path(result).write_text("torn")
    assert choose_result_path(result).name == "random.json"


def test_result_of_another_folder_with_the_same_name_is_neither_used_nor_overwritten(
    result, saved_model
):
    elsewhere = replace(result, folder="/somewhere/else/random")
    write_result(elsewhere, choose_result_path(elsewhere))
    assert choose_result_path(result) != choose_result_path(elsewhere)
    assert load_valid_results(saved_model, LoadConfig()) == []
